"""Winsorized SGD under label noise: what it keeps from being memorized, and at what price.

Upper rows: one column a share of random labels, one colour a percentile c; bands are 95 % intervals
over seeds, pointwise. After equally many steps a larger c has fitted fewer of the corrupt examples,
and less altogether; but with c = 2 and 4 % training accuracy is far above what true labels explain,
the dotted line (*not reproduced*). c: adjusted overfit with half of the labels random (without
noise no example is corrupt), which is training accuracy beyond what a perfect fit of the true
labels explains; in the mean it falls with every c, from 1 to 2 % within the seeds' spread
(*inconclusive*; where one share alone was run, it is the last panel). Last row: what has been
memorized at which accuracy on the pristine examples. Left, every c along its path, from half of the
pristine examples on: the paths lie on one another, that of c = 8 until 83 % are fitted, the others
until nine tenths. Right, the ends, means over seeds: squares are plain SGD at smaller and smaller
step sizes, in as many steps. On 2,000 images c = 2, 4 and 8 % end *above* that line: in the mean,
SGD with a smaller step memorized less at equal fit, and tested better. For c = 2, where the claims
are judged, one network fits more pristine examples than SGD ever does, and one fewer than SGD at
its smallest step, so these have no equal (*inconclusive*); it tests 4 points worse than SGD (*not
reproduced* that it is no worse; c = 8 tests better).

`winsorization-column` is the source's network on all of MNIST for 60 of its 100 epochs, half of the
labels random, 4 seeds. SGD has fitted 74 % of the corrupt examples by then, c = 1 and 2 about 4 %,
fewer than chance; adjusted overfit falls with every c. c = 1 stays just below what true labels
explain. c = 2 unlearns them: after 36,000 steps three of four networks fit 52 to 78 % of the
pristine examples, and one 91 %, where all had 90 % after 1,000, so that training accuracy lies far
*below* what true labels explain, but not as surely as the verdict asks (*inconclusive*). At equal
accuracy on the pristine examples SGD stopped early has memorized no more (*not reproduced*), and
SGD with an eighth or less of the step ends with 1 to 8 % of the corrupt examples and more of the
pristine ones than either c; none of its ends is as low as those of c = 2, so there is nothing to
compare these with (*inconclusive*). At their best all three test alike, SGD a little better: 95, 94
and 91 %.

`winsorization-half` is the same with c = 4 and 8 %, too, on the same four seeds. Its networks with
c = 2 went other ways than those of `winsorization-column`, since rounding differs (another machine,
sums in another order): all unlearn, and end with 70 to 88 % of the pristine examples fitted, so
that training accuracy lies below what true labels explain of every network (*reproduced*). The
larger c, the more is unlearned: a thousand steps in 88 % (c = 4) and 82 to 86 % (c = 8) are fitted,
at the end 48 to 64 and 22 to 28 %. Adjusted overfit falls with every c in every seed, 0.50, 0.044,
0.017, 0.013 and 0.003 in the mean, but from 2 to 4 % not as surely as five tests ask
(*inconclusive*); from c = 1 on it falls with test accuracy, 88, 78, 54 and 24 %: little is
memorized where little is fitted. SGD stopped at the pristine accuracy of c = 2 has memorized no
more.

`winsorization-three_quarters` is the same with three quarters of the labels random, 4 seeds, c = 0
and 2. SGD has fitted 72 % of the corrupt examples; with c = 2 training accuracy stays below what
true labels explain, of every network (*reproduced*): 8 % of the corrupt examples are fitted, fewer
than by chance, and 75 % of the pristine ones, down from 89 %.

`winsorization-quarter` is that with a quarter of the labels random. SGD has fitted 82 % of the
corrupt examples. With c = 2 training accuracy is at most 0.72 at any time, where true labels
explain 0.775 (*reproduced*), but it does not stay there: from 1,000 steps on it falls, two of four
networks end at 0.42 and 0.45 and two, from 5,000 and 8,000 steps on, give every image the same
label, which no number of this claim tells from keeping out random ones. At its best c = 2 tests
92 %, SGD 97 %. (Of a large c the source says that training accuracy falls after a certain point.)

`winsorization-random` has random labels alone. SGD has fitted 73 % of them; c = 2 fits 12 % a
thousand steps in, 13 % after 5,000 and 15 to 16 % at the end, where the most frequent label alone
makes 11 %: little is memorized, but more than chance explains (*not reproduced*).

`winsorization-clean` has no random labels. The larger c, the less is fitted: at the end 100, 99.6,
97.8, 95.5 and 89.4 % from c = 0 to 8: a large c hurts fitting (*reproduced*). 98.0, 97.9, 97.0,
95.3 and 89.7 % of the test images are right: the gap closes, from two points to none, by a worse
fit, not by a better test. From 1,000 steps on training accuracy rises with c = 1, 2 and 4 and stays
with c = 8: what c = 2 unlearns beside random labels it keeps without them.
"""

import numpy as np

from coherence.lab.report import drawing as style

NAMES = {
    "train_accuracy": "training accuracy",
    "corrupt_accuracy": "corrupt examples fitted",
    "test_accuracy": "test accuracy",
}


def draw(recorded):
    noise, c = recorded["noise"], recorded["c"]
    mixed = ((noise > 0) & (noise < 1)).any()  # else no example is corrupt, or none is pristine
    names = {name: label for name, label in NAMES.items() if mixed or "corrupt" not in name}
    figure, curves, below = _layout(len(noise), len(names))
    steps = style.log_steps(recorded["step"])
    for row, (name, label) in enumerate(names.items()):
        for column, share in enumerate(noise):
            panel = curves[row, column]
            for k, percent in enumerate(c):
                panel_name = f"{label}, noise {share:.0%}"
                values = recorded[name][column, k]
                if name == "corrupt_accuracy" and share == 0:
                    continue
                style.band(
                    panel, steps, values, _text(percent), colour=_colour(percent), title=panel_name
                )
            if name == "train_accuracy":
                style.guide(
                    panel,
                    1 - share + share / 10,
                    {0: "", 1: "chance"}.get(share, "only true labels fitted"),
                    "left",
                )
                panel.set_title(f"{share:.0%} random labels")
            panel.set(xscale="log", xlim=(0.6, steps[-1]), ylim=(0, 1.03), xlabel="step")
            panel.set(ylabel="" if column and name != "corrupt_accuracy" else label)
    if 0 in noise and recorded["judged_noise"] in noise:  # a panel without corrupt examples
        panel = curves[list(names).index("corrupt_accuracy"), list(noise).index(0)]
        _overfit(panel, recorded)
        panel.set_title(f"adjusted overfit, {recorded['judged_noise']:.0%} random labels")
    if mixed:
        _paths(below[0], recorded)
        _ends(below[1], recorded)
    if mixed and len(noise) == 1:
        _overfit(below[2], recorded)
    panels = [*curves.flat, *below]
    drawn = [panel for panel in panels if panel.has_data()]
    for panel in {*panels} - {*drawn}:
        panel.set_visible(False)
    style.letters(drawn, small=True)
    figure.legend(
        *curves[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(c)
    )
    return figure


def _layout(columns, rows):
    """A figure, its panels of curves [rows, columns] and those below: with one share of noise the
    curves lie side by side, and of true or random labels alone there is nothing below.
    """
    if rows < len(NAMES):
        shape = (rows, columns) if columns > 1 else (1, rows)
        figure, axes = style.figure(*shape, width=4.8, height=2.1)
        return figure, np.reshape(axes, (rows, columns)), []
    if columns == 1:
        figure, axes = style.figure(2, 3, height=2.1)
        return figure, axes[:1].T, axes[1]
    figure, axes = style.figure(4, columns, width=max(1.75 * columns + 1, 7.2), height=1.9)
    return figure, axes[:3], axes[3]


def _text(percent):
    return "SGD (c = 0)" if percent == 0 else f"c = {percent:g} %"


def _colour(percent):
    """The same for a percentile in all figures, whichever of the source's were run."""
    place = int(np.searchsorted((0, 1, 2, 4, 8), percent))
    return style.SEQUENCE[min(place, len(style.SEQUENCE) - 1)]


def _judged(recorded):
    """The place of the share of noise where the claims are judged, or of the nearest."""
    return int(np.argmin(np.abs(recorded["noise"] - recorded["judged_noise"])))


def _under_noise(recorded, name):
    return recorded[name][_judged(recorded)]


def _paths(panel, recorded):
    """Corrupt against pristine accuracy, mean over seeds at every measured step.

    The bands are those of the corrupt examples at each step.
    """
    panel.set(
        title=f"paths, {recorded['noise'][_judged(recorded)]:.0%} random labels",
        xlabel="pristine examples fitted",
    )
    panel.set(ylabel="corrupt examples fitted", xlim=(0.5, 1.01), ylim=(0, 1.03))
    pristine = _under_noise(recorded, "pristine_accuracy").mean(1)
    corrupt = _under_noise(recorded, "corrupt_accuracy")
    for k, percent in enumerate(recorded["c"]):
        options = {"colour": _colour(percent), "title": "paths", "marker": ".", "markersize": 3}
        style.band(panel, pristine[k], corrupt[k], _text(percent), **options)


def _ends(panel, recorded):
    panel.set(title="ends, after as many steps", xlabel="pristine examples fitted")
    panel.set(ylabel="corrupt examples fitted", ylim=(0, 1.03))
    pristine, corrupt = (
        _under_noise(recorded, f"{name}_accuracy")[..., -1].mean(1)
        for name in ("pristine", "corrupt")
    )
    for k, percent in enumerate(recorded["c"]):
        options = {"colour": _colour(percent), "style": "o", "title": "ends"}
        style.curve(panel, pristine[k : k + 1], corrupt[k : k + 1], "", **options)
    if len(recorded["slower"]):
        found = {"pristine": pristine, "corrupt": corrupt}
        x, y = (
            np.append(recorded[f"slower/{name}_accuracy"].mean(1)[::-1], ends[0])
            for name, ends in found.items()
        )
        style.curve(
            panel,
            x,
            y,
            "SGD, smaller steps",
            colour=style.NEUTRAL,
            style="--",
            title="ends",
            marker="s",
            markersize=3,
        )
        panel.legend(fontsize=7, loc="upper left")


def _overfit(panel, recorded):
    """Training accuracy beyond what a perfect fit of the true labels explains, 10 classes."""
    noise, steps = recorded["noise"][_judged(recorded)], style.log_steps(recorded["step"])
    train, test = (_under_noise(recorded, f"{name}_accuracy") for name in ("train", "test"))
    overfit = train - (noise / 10 + (1 - noise) * test)
    for k, percent in enumerate(recorded["c"]):
        options = {"colour": _colour(percent), "title": "adjusted overfit"}
        style.band(panel, steps, overfit[k], _text(percent), **options)
    panel.set(title="adjusted overfit", xscale="log", xlabel="step", ylim=(-0.1, 0.75))
    panel.set(ylabel="adjusted overfit")
