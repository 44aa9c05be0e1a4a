"""Easy and hard examples: which they are, and how each kind generalizes

A brief training (60 steps) gets 54 % of 30,000 MNIST images right: the *easy* ones; the rest are
*hard*. Networks are then trained from scratch on 1,000 examples of each kind, or of both at
*random*, 100 of every class, and compared at a training loss of 0.02 nats. Bands and whiskers: 95 %
over 8 seeds, each with a pool and a brief training of its own.

**a** By mean loss over 8 brief trainings. **b** More examples are learned by all 8, or by none,
than if each drew anew at the same rates for each class; correlations are 0.21, clear of 0 but not
of the 0.2 asked for beforehand (*inconclusive*). **c** So early, classes differ: a hard zero is
more of an exception than a hard five. **d, f** Easy examples generalize best among themselves, hard
ones worst; gaps are in reverse order. **g** Easy examples' gradients are the more coherent while
there is loss to lose.

**e** That hard examples by themselves define the boundary less well: on random test examples they
do better than easy ones (*inconclusive*: p 0.10 after Holm), on both kinds in equal parts clearly
so (*not reproduced*). Each kind is learned best from its own, but hard ones lose less elsewhere.
**h** What counts as hard decides: accuracy on random test examples of networks trained on the easy
and on the hard ones of brief trainings of 30 to 1,000 steps. Of 300 and 1,000 steps hard ones
define the boundary less well (*reproduced*: 14 and 23 points), of 100 they may (*inconclusive*), of
30 they do better (*not reproduced*); after 1,000 steps what is easy correlates between starts at
0.73. **i** A start that has fitted random labels first gets no more easy examples wrong than
another start does, after as many steps (*not reproduced*), and, when both have as many right, what
is easy depends on it no more (*inconclusive*).
"""

import math

import numpy as np

from coherence.lab.report import drawing as style

KINDS = ("easy", "random", "hard")
COLOURS = dict(zip(KINDS, (style.SEQUENCE[1], style.NEUTRAL, style.SEQUENCE[4])))


def draw(recorded):
    figure, axes = style.figure(4, 3, height=1.75, height_ratios=(0.6, 1.0, 1.0, 1.0))
    for panel in axes[0]:
        panel.remove()
    pictures(figure.add_subplot(axes[0, 0].get_gridspec()[0, :]), recorded["pictures"])
    reliability(axes[1, 0], recorded)
    by_class(axes[1, 1], recorded)
    against_loss(axes[1, 2], recorded, "test_accuracy", "Test on the same kind", "accuracy")
    everywhere(axes[2, 0], recorded)
    gaps(axes[2, 1], recorded)
    against_loss(
        axes[2, 2], recorded, "m_coherence", "Coherence", f"m-coherence, m = {recorded['m']}"
    )
    style.guide(axes[2, 2], 1, "orthogonal", "left")
    axes[2, 2].set_yscale("log", base=2)
    axes[2, 2].yaxis.set_major_formatter("{x:g}")
    sweep(axes[3, 0], recorded)
    both = style.across(axes[3, 1:])
    starts(both, recorded)
    style.letters([*axes[1:].flat[:7], both], "b", small=True)
    figure.legend(
        *axes[1, 2].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=3,
        title="trained on",
        title_fontsize=7.5,
    )
    return figure


def pictures(panel, shown):
    """The easiest examples of every class above, the hardest below: `shown` [kind, class, rank,
    pixel].
    """
    kinds, classes, ranks, pixels = shown.shape
    side = math.isqrt(pixels)
    panel.set_title(
        "a  The easiest (above) and the hardest examples of each class", loc="left", fontsize=8.5
    )
    panel.set_axis_off()
    if side * side < pixels:
        return
    canvas = np.full((kinds * (side + 3) - 3, classes * (ranks * (side + 1) + 3) - 4), np.nan)
    for kind, k, rank in np.ndindex(kinds, classes, ranks):
        top, left = kind * (side + 3), k * (ranks * (side + 1) + 3) + rank * (side + 1)
        canvas[top : top + side, left : left + side] = shown[kind, k, rank].reshape(side, side)
    panel.imshow(canvas, cmap="gray_r", interpolation="nearest")


def reliability(panel, recorded):
    """How many initializations learn an example early, beside what independent ones would."""
    times = np.arange(recorded["times_learned"].shape[1])
    panel.set(title="Learned by how many starts?", xlabel=f"of {times[-1]} initializations")
    panel.set(ylabel="share of the examples")
    looks = {"found": (style.SEQUENCE[1], -0.2, 1.0), "by chance": (style.NEUTRAL, 0.2, 0.5)}
    for (label, (colour, offset, alpha)), name in zip(
        looks.items(), ("times_learned", "by_chance")
    ):
        values = recorded[name]
        style.bars(
            panel, times, values, label, colour=colour, offset=offset, width=0.4, alpha=alpha
        )
    panel.set_xticks(times)
    panel.margins(y=0.25)
    panel.legend(fontsize=7, ncols=2, loc="upper center", handlelength=1.0, borderaxespad=0)


def by_class(panel, recorded):
    """Share of each class that the brief training gets right."""
    panel.set(title="Easy, by class", xlabel="class", ylabel="share learned early", ylim=(0, 1))
    learned = recorded["learned"]
    x = np.arange(learned.shape[1])
    style.bars(
        panel, x, learned, "easy", colour=style.SEQUENCE[1], width=0.7, title="Easy, by class"
    )
    panel.set(xticks=range(learned.shape[1]))


def against_loss(panel, recorded, name, title, label):
    """Curves over training as means over seeds at equal training loss, which falls to the right."""
    panel.set(title=title, xscale="log", xlabel="training loss, nats (falling)", ylabel=label)
    levels = np.geomspace(2, 0.02, 25)
    for kind, losses, values in zip(KINDS, recorded["train_loss"], recorded[name]):
        at = np.array(
            [
                np.interp(-np.log(levels), -np.log(np.minimum.accumulate(loss)), value)
                for loss, value in zip(losses, values)
            ]
        )
        options = {"colour": COLOURS[kind], "title": title, "logarithmic": name == "m_coherence"}
        style.band(panel, levels, at, kind, **options)
    panel.invert_xaxis()


def everywhere(panel, recorded):
    """Test accuracy on each kind by what was trained on, at equal training loss."""
    panel.set(title="Tested on each kind", xlabel="tested on", ylabel="accuracy", ylim=(0, 1))
    for k, kind in enumerate(KINDS):
        options = {"colour": COLOURS[kind], "offset": (k - 1) * 0.27, "width": 0.25}
        x = [f"{one} examples" for one in KINDS]
        style.bars(panel, x, recorded["accuracy"][k].T, f"trained on {kind}", **options)
    panel.set_xticks(range(len(KINDS)), KINDS)


def gaps(panel, recorded):
    """Test minus training loss of each kind on its own."""
    panel.set(title="Generalization gap", xlabel="trained and tested on")
    panel.set(ylabel="test - training loss, nats")
    for k, kind in enumerate(KINDS):
        values = recorded["gap"][k][:, None]
        style.bars(panel, [kind], values, kind, colour=COLOURS[kind], offset=k, width=0.7)
    panel.set_xticks(range(len(KINDS)), KINDS)


def sweep(panel, recorded):
    """Accuracy on random test examples, of easy and of hard ones, by length of brief training."""
    title = "What is hard"
    panel.set(title=title, xscale="log", xlabel="steps of the brief training")
    panel.set(ylabel="accuracy on random")
    for kind, values in zip(("easy", "hard"), recorded["sweep/accuracy"].swapaxes(0, 1)):
        style.band(
            panel, recorded["lengths"], values[:, 1].T, kind, colour=COLOURS[kind], title=title
        )
    panel.set(ylim=(0, 1))
    panel.set_xticks(recorded["lengths"], recorded["lengths"])
    panel.minorticks_off()


def starts(panel, recorded):
    """Ordinary starts beside adversarial ones, when both have as many right."""
    measures = {"easy ones it gets wrong": "wrong", "correlation of what is easy": "agreement"}
    panel.set(title="An adversarial start", ylabel="share, or correlation", ylim=(0, 1))
    for k, label in enumerate(("another start", "adversarial")):
        values = np.stack([recorded[f"adversary/{name}"][:, k] for name in measures.values()], 1)
        colour = (style.NEUTRAL, style.SEQUENCE[2])[k]
        style.bars(panel, list(measures), values, label, colour=colour, offset=k * 0.4, width=0.35)
    panel.set_xticks(np.arange(2) + 0.2, list(measures))
    panel.legend(fontsize=7)
