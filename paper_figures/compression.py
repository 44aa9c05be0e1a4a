"""What is lost when four workers send less: little with error feedback; and what workers agree on.

**a** Training loss by step: signs with their mean size, and one coordinate in a hundred, with error
feedback (solid) and without (dashed), beside 32 and 8 bits a coordinate. **b** Test accuracy by the
bytes that each worker has sent. **c** Alpha over the four workers' mean gradients against alpha
over examples, while plain averaging trains: a point a step, 400 examples; line: P2 for a finite
sample. Bands over 8 seeds.
"""

import numpy as np

from coherence.lab.report import drawing as style

STYLE = {
    "32 bits": (style.NEUTRAL, "-"),
    "8 bits": (style.COLOUR["real"], "-"),
    "signs": (style.COLOUR["pristine"], "-"),
    "signs, forgetting": (style.COLOUR["pristine"], "--"),
    "1 %": (style.COLOUR["corrupt"], "-"),
    "1 %, forgetting": (style.COLOUR["corrupt"], "--"),
}


def draw(recorded):
    figure, axes = style.figure(1, 3, height=2.6)
    loss(axes[0, 0], recorded)
    sent(axes[0, 1], recorded)
    agreement(axes[0, 2], recorded)
    style.letters(axes.flat, small=True)
    return figure


def loss(panel, recorded):
    """Training loss by step."""
    panel.set(title="Per step", xscale="log", yscale="log", xlabel="step")
    panel.set(ylabel="training loss (nats)")
    for name, (colour, dashes) in STYLE.items():
        steps = style.log_steps(recorded[f"{name}/step"])
        values = recorded[f"{name}/train_loss"]
        style.band(panel, steps, values, name, colour=colour, style=dashes)
    panel.legend(loc="lower left", **style.SMALL)


def sent(panel, recorded):
    """Test accuracy by bytes sent."""
    panel.set(title="Per byte", xscale="log", xlabel="sent by each worker (kB)")
    panel.set(ylabel="test accuracy", ylim=(0, 1))
    for name, (colour, dashes) in STYLE.items():
        after = recorded[f"{name}/step"] > 0
        sizes = recorded[f"{name}/step"][after] * recorded[f"{name}/bits"] / 8000
        values = recorded[f"{name}/test_accuracy"][:, after]
        style.band(panel, sizes, values, name, colour=colour, style=dashes)


def agreement(panel, recorded):
    """Alpha over workers against alpha over examples."""
    panel.set(title="Workers agree more", xscale="log", yscale="log")
    panel.set(xlabel="alpha over examples", ylabel=f"alpha over {recorded['workers']} workers")
    alphas = recorded["32 bits/alphas"].reshape(-1, 3)
    style.curve(
        panel,
        alphas[:, 0],
        alphas[:, 1],
        "measured",
        colour=style.COLOUR["real"],
        style="o",
        markersize=2,
    )
    m, workers = int(recorded["m"]), int(recorded["workers"])
    x, k = np.geomspace(alphas[:, 0].min(), alphas[:, 0].max(), 50), m // workers
    law = x / (x + (m - k) / (k * (m - 1)) * (1 - x))
    style.curve(panel, x, law, "P2", colour=style.NEUTRAL, style=":")
    panel.legend(loc="lower right", **style.SMALL)
