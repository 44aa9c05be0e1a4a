"""The median of three gradients: what it leaves unlearned, and of how many classes.

Half of the labels of 3,000 pairs of MNIST digits are random: a hundred classes, batches of 96. SGD,
M3 (the median of three groups of a batch), RM3 (of the last three batches) and RA3 (their mean, as
a control) train the same network at the same step size for as many steps; bands: 95 % over 4 seeds.

**a-c** A hundred classes: after as many steps M3 has memorized a fifth less (*reproduced*), RM3 no
more than 2 % less (*not reproduced*). Test accuracy ends no higher with either (*inconclusive*).
**d-f** Ten classes, the left digits of the very same images: M3 memorizes as SGD does. A batch has
ten examples of each class then, of a hundred classes less than one. **g** Slower fitting explains
it: SGD stopped where it fits as many pristine examples has memorized *less* than M3 (*not
reproduced*); dots mark the end. **h** Training loss with momentum 0.9 (dotted) and without: RM3
loses what momentum gives, but its loss does not climb (*not reproduced*). **i** Without noise M3
costs 0.11 of test accuracy (*not reproduced* that it costs little).
"""

from coherence.lab.report import drawing as style

METHODS = {
    "SGD": {"colour": style.NEUTRAL, "style": "-"},
    "M3": {"colour": style.SEQUENCE[0], "style": "-"},
    "RM3": {"colour": style.SEQUENCE[2], "style": "-"},
    "RA3": {"colour": style.SEQUENCE[4], "style": "--"},
}
WITH_MOMENTUM = ("SGD", "RM3")
KINDS = {
    "corrupt_accuracy": "corrupt fitted",
    "pristine_accuracy": "pristine fitted",
    "test_accuracy": "test accuracy",
}


def draw(recorded):
    (many, few), noise = recorded["classes"], float(recorded["noise"])
    figure, axes = style.figure(3, 3, height=2.0)
    over_steps(axes[0], recorded, many, noise)
    over_steps(axes[1], recorded, few, noise)
    at_equal_fit(axes[2, 0], recorded, many, noise)
    momentum(axes[2, 1], recorded, many, noise)
    clean(axes[2, 2], recorded, many)
    style.letters(axes.flat, small=True)
    lines = [style.key(method, look["colour"], look["style"]) for method, look in METHODS.items()]
    figure.legend(handles=lines, loc="outside upper center", ncols=len(lines))
    return figure


def cell(recorded, classes, noise, name):
    """[method, seed, step] of so many classes and that noise."""
    return recorded[f"classes={classes},noise={noise:g}/{name}"]


def over_steps(row, recorded, classes, noise):
    """What is fitted when."""
    steps = style.log_steps(cell(recorded, classes, noise, "step"))
    for panel, (name, label) in zip(row, KINDS.items()):
        title = f"{label.capitalize()}, {classes} classes"
        for (method, look), values in zip(METHODS.items(), cell(recorded, classes, noise, name)):
            style.band(panel, steps, values, method, title=title, **look)
        panel.set(xscale="log", ylim=(0, 1.03), xlabel="step")
        panel.set(ylabel="share" if "fitted" in label else "accuracy")
        panel.set_title(title)


def at_equal_fit(panel, recorded, classes, noise):
    """Corrupt against pristine examples fitted, means over seeds; dots at the end."""
    panel.set(title=f"At equal fit, {classes} classes", xlabel="pristine fitted")
    panel.set(ylabel="corrupt fitted", xlim=(0, 1.03), ylim=(0, 1.03))
    pristine, corrupt = (
        cell(recorded, classes, noise, f"{kind}_accuracy").mean(1)
        for kind in ("pristine", "corrupt")
    )
    for (method, look), x, y in zip(METHODS.items(), pristine, corrupt):
        style.curve(panel, x, y, method, **look)
        panel.plot(x[-1], y[-1], "o", color=look["colour"], markersize=4, clip_on=False, zorder=3)


def momentum(panel, recorded, classes, noise):
    """Training loss with momentum and without."""
    title = "With momentum"
    steps = style.log_steps(cell(recorded, classes, noise, "step"))
    courses = {"-": recorded["plain_loss"], ":": recorded["momentum/train_loss"]}
    for line, losses in courses.items():
        for method, values in zip(WITH_MOMENTUM, losses):
            look = METHODS[method] | {"style": line}
            label = f"{method}{', momentum' * (line == ':')}"
            style.band(panel, steps, values, label, title=title, logarithmic=True, **look)
    panel.set(title=title, xscale="log", yscale="log", xlabel="step", ylabel="training loss, nats")
    keys = [style.key("without", style.NEUTRAL, "-"), style.key("with", style.NEUTRAL, ":")]
    panel.legend(handles=keys, fontsize=7, loc="lower left")


def clean(panel, recorded, classes):
    """Test accuracy without noise."""
    title = f"No noise, {classes} classes"
    panel.set(title=title, xscale="log", xlabel="step", ylabel="test accuracy", ylim=(0, 1.03))
    steps = style.log_steps(cell(recorded, classes, 0, "step"))
    for (method, look), values in zip(METHODS.items(), cell(recorded, classes, 0, "test_accuracy")):
        style.band(panel, steps, values, method, title=title, **look)
