"""Evolution: coherence over training by noise, by layer, on random labels alone, and the layers put
together again.

m-coherence of 500 training examples of 1,000 digits, of a small CNN (a) and an MLP (b), by the
share of permuted labels. It starts between 4 and 32, far below m (that it starts from nearly m is
**not reproduced**), and falls within 25 steps, least in the CNN with true labels, to two thirds,
most on random ones, to a sixth (CNN) and a twentieth (MLP) (**inconclusive** against the halving
asked of every network and noise). On random labels it stays at 1 or a little below, then rises to 5
to 7 while they are memorized, and falls back: coherence out of nothing. With half of the labels
random it rises to a little more than the double that was claimed, though not surely enough for one
of 13 tests, and with true labels, where learning begins before the transient is over, by less
(both **inconclusive**). Against the loss (c; grey: the middle of training) random labels show the
same rise at a quarter of the step size (dashed; 6 of 16 seeds fit them in the time given): it is
not the larger step's oscillation alone. Two of 16 CNNs did not fit their random labels at the
larger step and are left out of what needs that: the 14 others all rise to the double and fall
again, and return to 1 (**reproduced**); whether more noise makes the peak later or lower is open
(**inconclusive**).

By layer (d to g) convolutions are above the output layer of their network (i), and above the hidden
layers of the MLP, with random labels the least (both **reproduced**).
The layers' alphas, weighted by their shares of the squared norms, add up to the whole to rounding
error (h: each layer's part of alpha; bottom to top in the order of the layers, colours as in f).
"""

import numpy as np

from coherence.lab.report import drawing as style

NETWORKS = {"cnn": "CNN", "mlp": "MLP"}


def draw(recorded):
    figure, axes = style.figure(3, 3, height=2.15)
    noise = recorded["noise"]
    panels = list(axes.flat)
    for panel, kind in zip(panels, NETWORKS):
        whole(panel, recorded, kind)
    against_loss(panels[2], recorded)
    for panel, level in zip(panels[3:], noise):
        by_layer(panel, recorded, "cnn", level)
    by_layer(panels[6], recorded, "mlp", noise[-1])
    parts(panels[7], recorded, f"cnn-{noise[-1]:g}")
    convolutions_and_dense(panels[8], recorded)
    for panel in panels[3 + len(noise) : 6]:
        panel.set_visible(False)
    for panel in (panels[0], panels[3], panels[6]):
        panel.set_ylabel(f"m-coherence, m = {recorded['m']}")
    style.letters(panels)
    return figure


def colours(recorded):
    """One colour a share of noise: true labels blue, random labels orange."""
    names = {0.0: "real", 1.0: "random"}
    return {level: style.COLOUR[names.get(float(level), "other")] for level in recorded["noise"]}


def steps(recorded, arm):
    return style.log_steps(recorded[f"{arm}/step"])


def logarithmic(panel, title, xlabel="step"):
    panel.set(xscale="log", yscale="log", xlabel=xlabel)
    panel.set_title(title)
    style.ticks(panel, y=(0.1, 1, 10, 100))
    style.guide(panel, 1)


def whole(panel, recorded, kind):
    """The whole network, one curve a share of noise."""
    title = f"{NETWORKS[kind]}, whole"
    for level, colour in colours(recorded).items():
        arm = f"{kind}-{level:g}"
        options = {"colour": colour, "title": title, "logarithmic": True}
        style.band(
            panel, steps(recorded, arm), recorded[f"{arm}/m_coherence"], f"{level:.0%}", **options
        )
    logarithmic(panel, title)
    panel.set_ylim(0.03, 90)
    panel.legend(
        title="permuted labels",
        title_fontsize=7,
        fontsize=7,
        loc="upper right",
        ncols=3,
        columnspacing=0.8,
        handlelength=1.2,
    )


def against_loss(panel, recorded):
    """Random labels: m-coherence where the mean training loss over seeds was so high."""
    title = "random labels, by loss"
    for (arm, colour, dashes), (text, rate) in zip(
        (
            ("cnn-1", style.COLOUR["random"], "-"),
            ("cnn-1-small", style.COLOUR["random"], "--"),
            ("mlp-1", style.NEUTRAL, "-"),
        ),
        (("CNN", 0), ("CNN", 1), ("MLP", 0)),
    ):
        loss = recorded[f"{arm}/loss"].mean(0)
        options = {"colour": colour, "style": dashes, "title": title, "logarithmic": True}
        label = f"{text}, step size {recorded['learning_rates'][rate]:g}"
        style.band(panel, loss, recorded[f"{arm}/m_coherence"], label, **options)
    start = recorded["cnn-1/loss"][:, 0].mean()
    panel.axvspan(
        *(share * start for share in recorded["middle"]),
        color=style.NEUTRAL,
        alpha=0.1,
        linewidth=0,
    )
    logarithmic(panel, title, "training loss (nats)")
    panel.set(xlim=(2.9, 0.02), ylim=(0.03, 90))
    style.ticks(panel, x=(2, 1, 0.5, 0.2, 0.1, 0.03))
    panel.legend(
        fontsize=7, loc="upper left", handlelength=1.8, labelspacing=0.2, borderaxespad=0.1
    )


def by_layer(panel, recorded, kind, level):
    """Every layer of one network; the output layer dashed."""
    arm, title = f"{kind}-{level:g}", f"{NETWORKS[kind]} by layer, {level:.0%} noise"
    names = recorded[f"{arm}/layers"]
    for k, name in enumerate(names):
        dashes = "--" if name == "output" else "-"
        colour = style.NEUTRAL if name == "output" else style.SEQUENCE[k]
        options = {"colour": colour, "style": dashes, "title": title, "logarithmic": True}
        style.band(
            panel,
            steps(recorded, arm),
            recorded[f"{arm}/by_layer"][..., k].astype(float),
            str(name),
            **options,
        )
    logarithmic(panel, title)
    panel.set_ylim(0.03, 200)
    panel.legend(
        fontsize=7,
        loc="upper right",
        ncols=2,
        columnspacing=0.8,
        handlelength=1.4,
        labelspacing=0.2,
    )


def parts(panel, recorded, arm):
    """Every layer's alpha times its share, on top of each other: they end at the whole."""
    x, names = steps(recorded, arm), recorded[f"{arm}/layers"]
    panel.set(title="CNN recombined, 100% noise", xscale="log", xlabel="step")
    panel.set(ylabel="share of alpha", xlim=(x[0], x[-1]), ylim=(0, 1))
    logs = np.log(recorded[f"{arm}/by_layer"].astype(float)).mean(0)
    part = recorded[f"{arm}/shares"] * np.exp(logs)
    part = part / part.sum(-1, keepdims=True)
    below = np.zeros(len(x))
    for k, name in enumerate(names):
        colour = style.NEUTRAL if name == "output" else style.SEQUENCE[k]
        panel.fill_between(x, below, below + part[:, k], color=colour, alpha=0.55, linewidth=0)
        style.curve(panel, x, part[:, k], str(name), colour=colour, linewidth=0)
        below = below + part[:, k]


def convolutions_and_dense(panel, recorded):
    """m-coherence in the middle of training, by kind of layer."""
    panel.set_title("middle of training, by layer")
    ticks = []
    for kind, marker in (("cnn", "o"), ("mlp", "s")):
        names = recorded[f"{kind}-{recorded['noise'][-1]:g}/layers"]
        places = np.arange(len(names)) + len(ticks) + (0.6 if ticks else 0)
        for level, colour in colours(recorded).items():
            arm = f"{kind}-{level:g}"
            values = recorded[f"{arm}/middle_by_layer"]
            label = f"{NETWORKS[kind]}, {level:.0%}"
            style.band(panel, places, values, label, colour=colour, logarithmic=True)
            panel.plot(places, np.exp(np.log(values).mean(0)), marker, color=colour, markersize=3.5)
        ticks += list(zip(places, names))
    panel.set_yscale("log")
    style.ticks(panel, y=(1, 2, 5, 10, 20, 50))
    short = {"output": "out"}
    panel.set_xticks(
        [x for x, _ in ticks],
        [short.get(str(n), str(n).replace("_", " ")) for _, n in ticks],
        rotation=60,
        fontsize=7,
    )
    panel.set_ylabel(f"m-coherence, m = {recorded['m']}")
    panel.legend(
        handles=[style.key(t, "k", m, markersize=3.5) for m, t in (("o", "CNN"), ("s", "MLP"))]
    )
