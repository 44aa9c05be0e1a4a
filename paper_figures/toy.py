"""The six-feature sets: learnable left, memorizable right; what descends, what moves, and the
gradients it moves by.

Four training examples, linear model, full batch; every number is known in closed form and
reproduced to 2e-7. Last row: each example pulls at a private weight of its own; on the learnable
set all pull at the sixth as well. So descent by the mean (solid) learns that one four times faster,
and tests well but for what the private weights took; on the memorizable set it fits the training
examples one by one and the test loss never moves. The coordinate-wise median (dashed) learns what
is shared and nothing else: test as training loss falls to zero on the left, and on the right
nothing is learned.
"""

from coherence.lab.report import drawing as style

SETS = {"learnable": "real", "memorizable": "random"}
METHODS = {"mean": "-", "median": "--"}


def draw(recorded):
    figure, axes = style.figure(4, 2, height=1.9, sharey="row")
    steps = recorded["step"]
    for column, (name, colour) in enumerate(SETS.items()):
        loss, weights, mean, each = axes[:, column]
        colour = style.COLOUR[colour]
        other = style.NEUTRAL
        for method, dashes in METHODS.items():
            arm = f"{name}-{method}"
            get = lambda key, arm=arm: recorded[f"{arm}/{key}"][0]
            options = {"colour": colour, "style": dashes, "title": f"{name}: loss"}
            style.curve(loss, steps, get("train_loss"), f"train, {method}", **options)
            y = get("test_loss")
            style.curve(
                loss, steps, y, f"test, {method}", colour=other, style=dashes, title=f"{name}: loss"
            )
            for key, panel, what in (
                ("weights", weights, "weight"),
                ("mean_gradient", mean, "mean gradient"),
            ):
                style.curve(
                    panel,
                    steps,
                    get(key)[:, 5],
                    f"shared, {method}",
                    colour=colour,
                    style=dashes,
                    title=f"{name}: {what}",
                )
                style.curve(
                    panel,
                    steps,
                    get(key)[:, 0],
                    f"private, {method}",
                    colour=other,
                    style=dashes,
                    title=f"{name}: {what}",
                )
        gradients = recorded[f"{name}-mean/gradients"][0, 0]
        for i, row in enumerate(gradients):
            style.bars(
                each,
                range(1, 7),
                row[None],
                f"example {i + 1}",
                colour=style.SEQUENCE[i],
                offset=(i - 1.5) * 0.2,
                width=0.18,
                title=f"{name}: gradients",
            )
        each.set_xticks(range(6), [*map(str, range(1, 6)), "6 (shared)"])
        each.set_xlabel("coordinate")
        loss.set_title(f"{name} set")
        for panel in (loss, weights, mean):
            panel.set(xlabel="step", xlim=(0, min(100, steps[-1])))
    for row, label in enumerate(
        ("loss", "weight", "mean gradient\n(at the weights)", "per-example\ngradient at the start")
    ):
        axes[row, 0].set_ylabel(label)
    for panel in (axes[0, 0], axes[0, 1], axes[1, 0], axes[2, 1]):
        panel.legend(ncols=2)
    axes[1, 1].legend(ncols=2, loc="lower right", bbox_to_anchor=(1, 0.1))
    axes[3, 1].legend(loc="lower right")
    return figure
