"""Every classifier on the same digits: wrong labels, calibration, coherence, what they draw, and
where they decide.

500 digits to learn from, 1,297 with true labels to test on, 8 seeds; lines are 95 % intervals over
them (d-f pool the seeds). **a** From all true labels (full marks) to 40 % permuted ones (empty): 1
nearest neighbour loses 33 points and 5 lose 9, a full tree 29, one with at least 10 examples a leaf
12, a forest of full ones 6, AdaBoost 22 (all four comparisons **reproduced**). Fitting the wrong
labels does not decide it alone: the forest and gradient boosting fit all of them, too. The MLP
loses 26 points, trained by the hinge loss 31, by the median of three means (M3) 24
(**reproduced**), but it fits 90 % of the wrong labels by step 1,000, and the plain MLP stopped at
step 30 or 100 is 18 points ahead of it: that M3 beats stopping is **not reproduced**. **b**
Gaussian naive Bayes is too sure by 8 points, a forest not sure enough by 27 (**reproduced**);
AdaBoost's probabilities are nearly uniform. **c** Where training loss falls to 1.6 nats, wrong
labels take coherence from 4-5 to 1 or below (by more than 4.9 doublings of alpha without its floor
on each network, **reproduced**). **d-f** The same as **b** by stated probability, bins of 20 or
more; above the dotted line a model is right more often than it says. **g** Drawn from p(x | y) for
a label, and how many a support vector machine takes for it, least often for those of the Boltzmann
machine (RBM), which are black and white. **h** 120 people to learn from; no classifier errs in less
than 15.9 %. What needs an image is left out; multinomial naive Bayes sees only proportions.
"""

import textwrap

import numpy as np
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.lines import Line2D

from coherence.lab.claims import interval
from coherence.lab.report import drawing as style

KINDS = {  # the first definition
    "generative": style.SEQUENCE[0],
    "discriminative, probabilistic": style.SEQUENCE[2],
    "discriminative, non-probabilistic": style.SEQUENCE[4],
}
RELIABILITY = {  # panel: models
    "generative": (
        "gaussian_nb",
        "multinomial_nb",
        "bernoulli_nb",
        "normal_bayes_full",
        "normal_bayes_shared",
        "conditional_vae",
        "rbm",
    ),
    "networks": ("softmax_regression", "mlp", "cnn", "rnn", "mlp_m3", "mlp_stopped_100"),
    "others": ("tree", "random_forest", "adaboost", "gradient_boosting", "xgboost", "knn"),
}
SHORT = {
    "normal Bayes, a covariance a class": "normal Bayes, full",
    "normal Bayes, shared covariance (LDA)": "normal Bayes, shared",
    "class-conditional VAE": "conditional VAE",
    "classification RBM": "RBM",
    "Gaussian naive Bayes": "Gaussian NB",
    "multinomial naive Bayes": "multinomial NB",
    "Bernoulli naive Bayes": "Bernoulli NB",
    "MLP, median of 3 means": "MLP, M3",
    "k nearest neighbours": "5 nearest neighbours",
}
COLOURS = (*style.SEQUENCE, style.COLOUR["other"], style.NEUTRAL)
MARKS = {"markersize": 4, "linewidth": 0}


def draw(recorded):
    figure, axes = style.figure(2, 3, height=3.1, height_ratios=(1.55, 0.8))
    ranked = np.argsort(recorded["accuracy"][:, -1].mean(-1))
    robustness(axes[0, 0], recorded, ranked)
    sureness(axes[0, 1], recorded, ranked)
    coherence(axes[0, 2], recorded, ranked)
    for panel, (title, names) in zip(axes[1], RELIABILITY.items()):
        reliability(panel, recorded, title, names)
    style.letters(axes.flat, small=True)
    axes[0, 0].tick_params(axis="y", labelsize=6.5)
    handles = [style.key(kind, colour, "o") for kind, colour in KINDS.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, handletextpad=0.1)
    return figure


def draw_2(recorded):
    figure, axes = style.figure(2, 1, height=2.0, height_ratios=(0.7, 1))
    pictures(axes[0, 0], recorded)
    regions(axes[1, 0], recorded)
    style.letters(axes.flat, "g", small=True)
    return figure


def label(text):
    return SHORT.get(str(text), str(text))


def robustness(panel, recorded, ranked):
    """One row a model, the best with most noise on top; one mark a share of wrong labels."""
    title = "accuracy with wrong labels"
    colours = [KINDS[how] for how in recorded["how"][ranked]]
    accuracy = 100 * recorded["accuracy"][ranked]
    for k, (noise, fill) in enumerate(zip(recorded["noise"], fills(len(recorded["noise"])))):
        for i, (name, colour) in enumerate(zip(recorded["name"][ranked], colours)):
            mean = spread(panel, title, f"{name}, {noise:.0%}", i, accuracy[i, k], colour)
            panel.plot(
                mean,
                i,
                "o",
                **MARKS,
                color=colour,
                markeredgecolor=colour,
                markerfacecolor=faded(colour, fill),
            )
    panel.set_yticks(range(len(ranked)), [label(text) for text in recorded["label"][ranked]])
    panel.set(xlabel="test accuracy, %", ylim=(-0.7, len(ranked) - 0.3))
    panel.set_title(title)
    marks = [
        Line2D(
            [],
            [],
            marker="o",
            color=style.NEUTRAL,
            markeredgecolor=style.NEUTRAL,
            markerfacecolor=faded(style.NEUTRAL, fill),
            label=f"{noise:.0%}",
            **MARKS,
        )
        for noise, fill in zip(recorded["noise"], fills(len(recorded["noise"])))
    ]
    panel.legend(
        handles=marks,
        title="permuted",
        title_fontsize=6.5,
        fontsize=6.5,
        loc="upper left",
        handletextpad=0.1,
    )


def spread(panel, title, name, row, values, colour, logarithmic=False):
    """The mean over seeds, drawn with its 95 % interval across the row, and kept for the CSV."""
    of_seeds = interval((np.log(values) if logarithmic else values).tolist())
    mean, low, high = np.exp(of_seeds) if logarithmic else of_seeds
    panel.plot(
        [low, high], [row, row], color=colour, linewidth=1.6, solid_capstyle="butt", alpha=0.8
    )
    panel.figure.drawn.append(
        (title, name, row, *(f"{number:.6g}" for number in (mean, low, high)))
    )
    return mean


def fills(n):
    """Full without noise, empty with most."""
    return np.linspace(1, 0, n)


def faded(colour, share):
    """So much of a colour in white."""
    return tuple(1 - share * (1 - part) for part in to_rgb(colour))


def sureness(panel, recorded, ranked):
    """By how much the stated probability exceeds the accuracy, true labels; nothing where a model
    states none.
    """
    title = "how much too sure"
    for i, (name, how) in enumerate(zip(recorded["name"][ranked], recorded["how"][ranked])):
        if f"{name}/too_sure" in recorded:
            values = 100 * recorded[f"{name}/too_sure"]
            panel.barh(i, values.mean(), 0.6, color=KINDS[how], alpha=0.55)
            spread(panel, title, name, i, values, "black")
        else:
            panel.text(0, i, " no probabilities", fontsize=6, color=style.NEUTRAL, va="center")
    panel.axvline(0, color=style.NEUTRAL, linewidth=0.8)
    panel.set_yticks(range(len(ranked)), [])
    panel.set(xlabel="stated probability minus\naccuracy, points; true labels")
    panel.set(ylim=(-0.7, len(ranked) - 0.3))
    panel.set_title(title)


def coherence(panel, recorded, ranked):
    """m-coherence at the same training loss, true labels and most wrong ones, for those that have
    gradients of that loss.
    """
    title = "coherence at equal loss"
    for i, name in enumerate(recorded["name"][ranked]):
        values = recorded.get(f"{name}/coherence", np.full((2, 1), np.nan))
        if np.isfinite(values).all() and not name.startswith(
            "mlp_stopped"
        ):  # those are the MLP, up to where they stop
            for row, text in zip(values, ("real", "random")):
                colour = style.COLOUR[text]
                panel.plot(
                    spread(panel, title, f"{name}, {text}", i, row, colour, logarithmic=True),
                    i,
                    "o",
                    **MARKS,
                    color=colour,
                )
    panel.set_yticks(range(len(ranked)), [])
    panel.set(xlabel=f"m-coherence, m = {recorded['m']}", xscale="log", xlim=(0.4, 10))
    panel.set(ylim=(-0.7, len(ranked) - 0.3))
    panel.set_title(title)
    style.ticks(panel, x=(0.5, 1, 2, 4, 8))
    most = f"{recorded['noise'][-1]:.0%} permuted"
    marks = [
        Line2D([], [], marker="o", color=style.COLOUR[c], label=text, **MARKS)
        for c, text in (("real", "true labels"), ("random", most))
    ]
    panel.legend(handles=marks, fontsize=6.5, loc="upper right", handletextpad=0.1)


def reliability(panel, recorded, title, names):
    """How often the most probable label is right where it is said to be so probable; bins of 20
    test examples or more.
    """
    panel.plot([0, 1], [0, 1], color=style.NEUTRAL, linewidth=0.8, linestyle=":")
    labels = dict(zip(recorded["name"], recorded["label"]))
    for name, colour in zip(names, COLOURS):
        if f"{name}/bins" in recorded:
            number, stated, right = recorded[f"{name}/bins"].T
            many = number >= 20
            x, y = (part[many] / number[many] for part in (stated, right))
            style.curve(
                panel,
                x,
                y,
                label(labels[name]),
                colour=colour,
                title=f"reliability, {title}",
                marker="o",
                markersize=2,
                linewidth=1.1,
            )
    panel.set(xlabel="stated probability", xlim=(0.1, 1.02), ylim=(0, 1.02))
    panel.set_title(f"reliability, {title}")
    if title == "generative":
        panel.set_ylabel("share that is right")
    panel.legend(
        fontsize=6,
        loc="upper center",
        bbox_to_anchor=(0.45, -0.32),
        ncols=2,
        handlelength=1.1,
        labelspacing=0.15,
        columnspacing=0.8,
    )


def pictures(panel, recorded, columns=3):
    """Two digits of each label that every generative model draws, with the share that is
    recognized.
    """
    names = [name for name in recorded["name"] if f"{name}/pictures" in recorded]
    labels = dict(zip(recorded["name"], recorded["label"]))
    side, above, beside = 8, 6, 6
    canvas = np.full(
        (-(-len(names) // columns) * (2 * side + above), columns * (10 * side + beside) - beside),
        np.nan,
    )
    for i, name in enumerate(names):
        top, left = i // columns * (2 * side + above) + above, i % columns * (10 * side + beside)
        shown = (
            recorded[f"{name}/pictures"]
            .reshape(2, 10, side, side)
            .transpose(0, 2, 1, 3)
            .reshape(2 * side, 10 * side)
        )
        canvas[top : top + 2 * side, left : left + 10 * side] = shown
        share = 100 * recorded[f"{name}/recognized"].mean()
        panel.text(left, top - 1, f"{label(labels[name])}, {share:.0f} %", fontsize=7)
    panel.imshow(canvas, cmap="gray_r", vmin=0, vmax=255, interpolation="nearest")
    panel.set_axis_off()
    panel.set_title("digits drawn for the labels 0 to 9, and how many are recognized")


def regions(panel, recorded, columns=10):
    """Decisions on weight and foot size, with the people learned from; below each the error on
    other people.
    """
    cells, side = recorded["regions"], recorded["regions"].shape[-1]
    across, down = side * 9 // 8, side * 14 // 8
    canvas = np.full((-(-len(cells) // columns) * down, columns * across), np.nan)
    low, high = recorded["axes"][:, 0], recorded["axes"][:, -1]
    people = (recorded["people"] - low) / (high - low) * (side - 1)
    inside = ((people >= 0) & (people <= side - 1)).all(1)
    colours = [style.SEQUENCE[1], style.COLOUR["corrupt"]]
    for i, (cell, text) in enumerate(zip(cells, recorded["region_label"])):
        top, left = i // columns * down, i % columns * across
        canvas[top : top + side, left : left + side] = cell[::-1]
        for sex, colour in enumerate(colours):
            x, y = people[inside & (recorded["sex"] == sex)].T
            panel.plot(
                left + x, top + side - 1 - y, "o", color=colour, markersize=0.9, markeredgewidth=0
            )
        error = 100 * recorded["region_error"][:, i].mean()
        words = "\n".join([*textwrap.wrap(label(text), 13), f"{error:.1f} %"])
        panel.text(
            left + side / 2,
            top + side + 1,
            words,
            fontsize=6,
            ha="center",
            va="top",
            linespacing=1.0,
        )
    panel.imshow(
        canvas, cmap=ListedColormap(colours), alpha=0.35, vmin=0, vmax=1, interpolation="nearest"
    )
    panel.set_axis_off()
    panel.set_title("women or men, from weight (to the right) and foot size; error on other people")
