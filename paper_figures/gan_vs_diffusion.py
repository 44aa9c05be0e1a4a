"""With 1,000 digits a GAN and a diffusion model cannot be told apart; with 100 the diffusion model
draws better, at 170 times the time a sample.

Conditional models of digits of 8 x 8 pixels, 5 seeds. **a** Samples asked for 0 to 9, two rows a
model. **b** Frechet distance of 360 samples to test images, in features of a classifier of other
digits, by the steps of DDIM that a sample takes, with a guidance of 1; a GAN takes one (bar: lowest
to highest seed). With 1,000 images the two cannot be told apart (*inconclusive*); with 100 the GAN
is worse by 1.9 doublings, not better (**not reproduced**): it keeps to few kinds. **c** Recognized
as asked: the GAN 98 %, diffusion 94 % [91, 98] (both over 90 %: *inconclusive*). A GAN draws 360
digits in 11 ms, 20 steps take 1.9 s (*reproduced*). **d** Seeds differ as much for either
(*inconclusive*). **e** A ring of eight normal distributions: 20 steps of diffusion keep all eight
modes with 2 % each in every seed, the GAN 7.8 on average (*inconclusive*). **f** The smoothed loss
of the noise predictor falls, with rises of 4 % of its range at most; the sum of both players'
losses does not (both *reproduced*). One seed.
"""

import numpy as np

from coherence.lab.report import drawing as style

COLOURS = {"GAN": style.COLOUR["corrupt"], "diffusion": style.COLOUR["real"]}
DASHES = {"many": "-", "few": "--"}
GAP = 1  # pixels between two images


def draw(recorded):
    figure, axes = style.figure(2, 3, height=2.15)
    plots = (digits, distance, time, seeds, ring, losses)
    for panel, plot in zip(axes.flat, plots):
        plot(panel, recorded)
    style.letters(axes.flat, small=True)
    return figure


def tiles(pictures):
    """[rows, columns, height, width] as one picture with margins."""
    rows, columns, height, width = pictures.shape
    wide = np.pad(pictures, ((0, 0), (0, 0), (0, GAP), (0, GAP)))
    return wide.transpose(0, 2, 1, 3).reshape(rows * (height + GAP), columns * (width + GAP))


def digits(panel, recorded):
    arms = [f"{model}, {size}" for size in DASHES for model in COLOURS]
    rows = [recorded[f"{arm}/images"].swapaxes(0, 1)[:2] for arm in arms]
    style.picture(panel, tiles(np.concatenate(rows)) * 17.0)
    side = 2 * (rows[0].shape[-1] + GAP)
    names = ("GAN\n1,000", "diffusion\n1,000", "GAN\n100", "diffusion\n100")
    panel.set_yticks([side * (i + 0.5) for i in range(4)], names, fontsize=6.5)
    panel.tick_params(axis="y", length=0)
    panel.set_title("asked for 0, ..., 9")


def distance(panel, recorded):
    panel.set(xscale="log", yscale="log", xlabel="steps of drawing")
    panel.set(ylabel="Frechet distance")
    panel.set_title("quality, 1,000 and 100 images")
    steps = recorded["drawing_steps"]
    for size, dashes in DASHES.items():
        values = recorded[f"diffusion, {size}/frechet"]
        style.band(panel, steps, values, f"diffusion, {size}", colour=COLOURS["diffusion"],
                   style=dashes, marker="o", markersize=3)  # fmt: skip
        values = recorded[f"GAN, {size}/frechet"]
        marker = "o" if size == "many" else "^"
        style.band(panel, [1], values, f"GAN, {size}", colour=COLOURS["GAN"], style=marker)
        _interval(panel, 1, values[:, 0], COLOURS["GAN"])
    floor = recorded["GAN, many/floor"].mean() / 2  # of halves, 180 each; it falls with 1 / n
    style.guide(panel, floor, "real images", side="right")
    style.ticks(panel, x=steps)
    panel.legend(handles=_keys(), **style.SMALL)


def _interval(panel, x, values, colour):
    """From the lowest to the highest seed."""
    panel.plot([x, x], [values.min(), values.max()], color=colour, linewidth=1.2)


def _keys():
    sizes = {"many": "1,000 images", "few": "100 images"}
    models = [style.key(model, colour) for model, colour in COLOURS.items()]
    return [*models, *(style.key(sizes[size], style=dashes) for size, dashes in DASHES.items())]


def time(panel, recorded):
    panel.set(xscale="log", xlabel="processor time to draw 360 (s)", ylabel="recognized as asked")
    panel.set_title("as asked, by time")
    for model, colour in COLOURS.items():
        for size in DASHES:
            seconds = recorded[f"{model}, {size}/seconds"]
            share = recorded[f"{model}, {size}/recognized"]
            fill = {"markerfacecolor": colour if size == "many" else "none"}
            panel.plot(seconds.ravel(), share.ravel(), "o", color=colour, markersize=3, **fill)
            style.remember(panel, None, f"{model}, {size}", seconds.mean(0), share.mean(0))
    style.guide(panel, 0.9)
    filled = style.key("1,000 images", style="o")
    empty = style.key("100 images", style="o", markerfacecolor="none")
    panel.legend(handles=[filled, empty], **style.SMALL, loc="lower right")


def seeds(panel, recorded):
    panel.set(yscale="log", ylabel="Frechet distance", xticks=[])
    panel.set_title("every seed")
    place, last = 0, len(recorded["drawing_steps"]) - 2
    ticks = []
    for size in DASHES:
        for model, colour in COLOURS.items():
            values = recorded[f"{model}, {size}/frechet"][:, 0 if model == "GAN" else last]
            panel.plot(np.full(len(values), place), values, "o", color=colour, markersize=3)
            ticks.append(f"{model}\n{'1,000' if size == 'many' else '100'}")
            place += 1
    panel.set_xticks(range(place), ticks, fontsize=6.5)
    panel.set_xlim(-0.5, place - 0.5)


def ring(panel, recorded):
    panel.set_title("a ring of eight")
    for model, colour in COLOURS.items():
        x, y = recorded[f"{model}, ring/points"].astype(float).T
        panel.plot(x, y, ".", color=colour, markersize=2, alpha=0.5, label=model)
    panel.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
    panel.legend(**style.SMALL, markerscale=3, loc="center")


def losses(panel, recorded):
    panel.set(xlabel="share of training", ylabel="smoothed loss over its first")
    panel.set_title("one falls")
    for model, colour in COLOURS.items():
        loss = recorded[f"{model}, many/loss"].astype(float)
        style.curve(panel, np.linspace(0, 1, len(loss)), loss / loss[0], model, colour=colour)
    panel.set_ylim(bottom=0)
    panel.legend(**style.SMALL)
