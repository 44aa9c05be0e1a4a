"""A language model's gradients, on true and on shuffled text

A character-level transformer (3 layers, width 96) on 4,000 windows of 32 characters of text
messages, and on the same characters in random order, with Adam. m-coherence of 128 fixed windows
(by position of all 128); bands: 95 % over 8 seeds.

**a** Training loss; dotted, the entropy of single characters. **b** The whole network. **c** By
kind of layer and **d** by position (the loss of one position alone), true text. **e** The gradient
noise scale of all norm layers against that of the whole, every seed and measurement from step 30
on, true text. **f** How much of the changes of characters' losses cancels between two measurements.

At equal steps true text is the less coherent (*not reproduced*): its loss falls on, and coherence
falls with it; at an equal loss neither is clearly ahead. Norm layers are more coherent than the
others and follow the noise of the whole (*reproduced*).
"""

import numpy as np

from coherence.lab.report import drawing as style

TEXTS = {
    "true": {"colour": style.SEQUENCE[0], "style": "-"},
    "shuffled": {"colour": style.SEQUENCE[3], "style": "-"},
}
KINDS = {"embedding": "embedding", "attention": "attention", "mlp": "MLP", "norm": "norms"}


def draw(recorded):
    figure, axes = style.figure(2, 3, height=2.1)
    over_steps(axes[0, 0], recorded, "train_loss", "Loss", "training loss, nats")
    entropy = float(recorded["true/entropy"].mean())
    axes[0, 0].axhline(entropy, color=style.NEUTRAL, linewidth=0.8, linestyle=":")
    over_steps(axes[0, 1], recorded, "m_coherence", "Coherence", coherence(recorded))
    axes[0, 1].set_yscale("log")
    style.guide(axes[0, 1], 1, "orthogonal", "left")
    by_layer(axes[0, 2], recorded)
    by_position(axes[1, 0], recorded)
    noise_scales(axes[1, 1], recorded)
    over_steps(axes[1, 2], recorded, "interference", "Opposition", "share of changes that cancels")
    axes[1, 2].set_ylim(0, 1)
    style.letters(axes.flat, small=True)
    lines = [style.key(f"{text} text", **look) for text, look in TEXTS.items()]
    figure.legend(handles=lines, loc="outside upper center", ncols=2)
    return figure


def coherence(recorded):
    return f"m-coherence, m = {recorded['m']}"


def over_steps(panel, recorded, name, title, label):
    for text, look in TEXTS.items():
        values = recorded[f"{text}/{name}"]
        steps = style.log_steps(recorded[f"{text}/step"])[-values.shape[1] :]
        logarithmic = name == "m_coherence"
        style.band(panel, steps, values, text, title=title, logarithmic=logarithmic, **look)
    panel.set(title=title, xscale="log", xlabel="step", ylabel=label)


def by_layer(panel, recorded):
    """Geometric means over the layers of a kind."""
    title = "By kind of layer"
    steps = style.log_steps(recorded["true/step"])
    for (kind, label), colour in zip(KINDS.items(), style.SEQUENCE):
        chosen = [str(name).startswith(kind) for name in recorded["layers"]]
        values = np.exp(np.log(recorded["true/by_layers"][..., chosen].astype(float)).mean(-1))
        style.band(panel, steps, values, label, colour=colour, title=title, logarithmic=True)
    panel.set(title=title, xscale="log", yscale="log", xlabel="step", ylabel=coherence(recorded))
    style.ticks(panel, y=(1, 3, 10, 30))
    panel.legend(fontsize=7)


def by_position(panel, recorded):
    title = "By position"
    steps = style.log_steps(recorded["true/step"])
    positions = recorded["positions"].astype(int)
    in_order = np.argsort(positions)
    first, middle, last = in_order[0], in_order[len(in_order) // 2], in_order[-1]
    for k, colour in zip((first, middle, last), style.SEQUENCE[::2]):
        values = recorded["true/by_positions"][..., k]
        label = f"after {positions[k] + 1}"
        style.band(panel, steps, values, label, colour=colour, title=title, logarithmic=True)
    panel.set(title=title, xscale="log", yscale="log", xlabel="step")
    panel.set(ylabel=f"m-coherence, m = {recorded['few']}")
    style.ticks(panel, y=(0.5, 1, 2, 4))
    panel.legend(fontsize=7, title="characters", title_fontsize=7)


def noise_scales(panel, recorded):
    """Norm layers' noise scale against the whole network's."""
    m, later = int(recorded["m"]), recorded["true/step"] >= 30
    norms = recorded["true/by_kinds"][..., list(recorded["kinds"]).index("norms")][:, later]
    whole = ((recorded["true/m_coherence"] - 1) / (m - 1))[:, later]
    usable = (norms > 0) & (whole > 0)
    scales = [1 / np.where(usable, alpha, np.nan) - 1 for alpha in (norms, whole)]
    panel.plot(scales[1].T, scales[0].T, ".", color=TEXTS["true"]["colour"], markersize=3)
    panel.set(title="Noise scale", xscale="log", yscale="log", xlabel="whole network, windows")
    panel.set(ylabel="norm layers, windows")
    style.ticks(panel, x=(10, 30, 100, 300), y=(10, 30, 100, 300))
