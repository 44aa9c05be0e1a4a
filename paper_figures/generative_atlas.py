"""Seven generative models on the same images: those whose gradients agree less copy more.

1,000 black and white digits, or the same with the pixels of each in an order of its own; 100 passes
over them each, by gradients; samples turned black and white; bars and bands over 5 seeds. **a** Two
samples of each digit; AE and VAE take no label, and a code of the AE is drawn from the normal
distribution of its training images' codes. **b, c** Quality in the features of a classifier of
other images (dotted: real ones). Naive Bayes, whose pixels are independent given the digit, is
nearest in these two moments, though not to the eye; the conditional VAE draws the digit asked for
in 96 %, naive Bayes in 86 %, the Boltzmann machine in 83 %, diffusion by dense layers in 45 %. The
GAN failed: it draws few digits, and seldom those asked for; presumably grey is told from black and
white at a glance. **d** How far samples are from the nearest
training image, over how far unseen images are: below 1 they are nearer. Those of the model with the
least Frechet distance, naive Bayes, are no copies (*reproduced*); those of the conditional VAE are
nearer than unseen images by a fifth.

**e** Over models and both kinds of images (open: shuffled) novelty goes with coherence, rank
correlation 0.69 (*reproduced*): a correlation of models that differ in much else. The GAN's
generator, which follows one direction, is on the right. **f, g** Coherence of what each is trained
on, on real images. **h** Real over shuffled images, of a GAN the generator: twofold to fourfold for
naive Bayes and VAEs; that it is above in every model is *inconclusive*, decided by the GAN's
discriminator.
"""

import numpy as np

from coherence.lab.report import drawing as style

MEASURES = ("frechet", "coverage", "density", "label_entropy", "recognized", "novelty")
COLOUR = {
    "naive Bayes": style.NEUTRAL,
    "RBM": style.SEQUENCE[0],
    "AE": style.SEQUENCE[2],
    "VAE": style.SEQUENCE[3],
    "conditional VAE": style.SEQUENCE[4],
    "GAN": style.COLOUR["corrupt"],
    "diffusion": style.COLOUR["real"],
}
MARKER = dict(zip(COLOUR, "osv^D*P"))
PLAYERS = ("generator", "discriminator")


def draw(recorded):
    figure, axes = style.figure(3, 3, height=2.2)
    models = [str(model) for model in recorded["models"]]
    samples(style.across(axes[0, :2]), recorded, models)
    quality(axes[0, 2], recorded, models)
    for panel, measure in zip((axes[1, 0], axes[1, 1]), ("coverage", "novelty")):
        by_model(panel, recorded, models, measure)
    plane(axes[1, 2], recorded, models)
    likelihoods = [model for model in models if model not in ("GAN", "diffusion")]
    agreement(axes[2, 0], recorded, likelihoods, "real")
    agreement(axes[2, 1], recorded, [m for m in models if m not in likelihoods], "real")
    apart(axes[2, 2], recorded, models)
    style.letters(_in_order(figure), small=True)
    return figure


def _in_order(figure):
    """Panels from the top left on."""
    place = lambda panel: (
        panel.get_subplotspec().rowspan.start,
        panel.get_subplotspec().colspan.start,
    )
    return sorted(figure.axes, key=place)


def samples(panel, recorded, models):
    """Two of each digit, a model a row; those that take no label as they come."""
    rows = [np.concatenate(list(recorded[f"{m}, real/shown"]), 1) for m in models]
    style.picture(panel, np.concatenate([np.pad(row, ((1, 0), (0, 0))) for row in rows]) * 255.0)
    panel.set_yticks([9 * i + 5 for i in range(len(models))], models)
    panel.tick_params(length=0)
    panel.set_title("samples", loc="left")


def measured(recorded, model, kind, name):
    return recorded[f"{model}, {kind}/quality"][MEASURES.index(name)].astype(float)


def quality(panel, recorded, models):
    panel.set_title("Frechet distance", loc="left")
    for place, model in enumerate(models):
        values = measured(recorded, model, "real", "frechet")[:, None]
        style.bars(panel, [model], values, model, colour=COLOUR[model], offset=place, width=0.7)
    floor = recorded["real_quality"][MEASURES.index("frechet")].mean()
    style.guide(panel, floor)
    _names(panel, models)
    panel.set(ylabel="from unseen images", yscale="log", ylim=(0.5, 300))


def by_model(panel, recorded, models, name):
    titles = {
        "coverage": "coverage",
        "novelty": "distance from training images",
    }
    panel.set_title(titles[name], loc="left")
    kinds = {"real": 1.0} if name == "coverage" else {"real": 1.0, "shuffled": 0.45}
    for place, model in enumerate(models):
        for i, (kind, alpha) in enumerate(kinds.items()):
            values = measured(recorded, model, kind, name)[:, None]
            style.bars(
                panel,
                [model],
                values,
                f"{model}, {kind}",
                colour=COLOUR[model],
                offset=place + (i - 0.5) * 0.36 * (len(kinds) > 1),
                width=0.7 / len(kinds),
                alpha=alpha,
            )
    if name == "coverage":
        style.guide(panel, recorded["real_quality"][1].mean(), "real images")
        panel.set(ylabel="unseen images with\na sample near")
    else:
        style.guide(panel, 1)
        panel.set(ylabel="over that of unseen ones", ylim=(0, 2))
        keys = [style.key(kind, style.NEUTRAL, "s", alpha=a) for kind, a in kinds.items()]
        panel.legend(handles=keys, loc="upper right", **style.SMALL)
    _names(panel, models)


def _names(panel, models):
    panel.set_xticks(range(len(models)), models, rotation=45, ha="right")
    panel.tick_params(axis="x", length=0)


def window(recorded, model, kind):
    """Mean log2 of m-coherence from 3 to 60 passes, [seed]; of a GAN the generator's."""
    name = f"{model}, {kind}"
    passes = recorded[f"{name}/step"] * recorded["passes_a_step"]
    part = PLAYERS[0] if model == "GAN" else "coherence"
    inside = (passes >= 3) & (passes <= 60)
    return np.log2(recorded[f"{name}/{part}"][:, inside].astype(float)).mean(1)


def plane(panel, recorded, models):
    """Coherence against novelty: filled real images, open shuffled ones; a mark a seed."""
    panel.set_title("coherence and copies", loc="left")
    for model in models:
        for kind in ("real", "shuffled"):
            x, y = 2 ** window(recorded, model, kind), measured(recorded, model, kind, "novelty")
            face = COLOUR[model] if kind == "real" else "none"
            panel.plot(
                x, y, MARKER[model], color=COLOUR[model], markersize=3.5, markerfacecolor=face
            )
            style.remember(panel, None, f"{model}, {kind}", x, y)
    style.guide(panel, 1)
    panel.set(xscale="log", xlabel="m-coherence, 3 to 60 passes", ylabel="novelty of samples")
    keys = [style.key(m, COLOUR[m], MARKER[m], markersize=3.5) for m in models]
    low, high = panel.get_xlim()
    style.ticks(panel, x=[tick for tick in (1, 2, 5, 10, 20, 50, 100) if low < tick < high])
    panel.legend(handles=keys, loc="best", **{**style.SMALL, "fontsize": 6})


def agreement(panel, recorded, models, kind):
    panel.set_title(f"gradients of {kind} images", loc="left")
    for model in models:
        name = f"{model}, {kind}"
        passes = style.log_steps(recorded[f"{name}/step"]) * recorded["passes_a_step"]
        parts = dict(zip(PLAYERS, ("-", "--"))) if model == "GAN" else {"coherence": "-"}
        for part, dashes in parts.items():
            label = model if part == "coherence" else part
            values = recorded[f"{name}/{part}"].astype(float)
            options = {"colour": COLOUR[model], "style": dashes, "logarithmic": True}
            style.band(panel, passes, values, label, **options)
    style.guide(panel, 1)
    panel.set(xscale="log", yscale="log", xlabel="passes over the data")
    panel.set(ylabel=f"m-coherence, m = {recorded['m']}")
    if models:
        panel.legend(loc="best", **style.SMALL)


def apart(panel, recorded, models):
    panel.set_title("real above shuffled images", loc="left")
    for model in models:
        part = PLAYERS[0] if model == "GAN" else "coherence"
        real, shuffled = (
            recorded[f"{model}, {kind}/{part}"].astype(float) for kind in ("real", "shuffled")
        )
        passes = recorded[f"{model}, real/step"] * recorded["passes_a_step"]
        late = passes >= 1
        values = np.log2(real[:, late] / shuffled[:, late])
        style.band(panel, passes[late], values, model, colour=COLOUR[model])
    style.guide(panel, 0)
    panel.set(xscale="log", xlabel="passes over the data", ylabel="doublings of m-coherence")
