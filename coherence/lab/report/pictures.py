"""The most and the least coherent examples as pictures."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from . import drawing
from .examples import Ranking, images, is_corrupt, place

SHOWN = 10
"""Examples in a row."""


def ends(ranking: Ranking, kept: dict[str, np.ndarray]) -> Figure | None:
    """Two rows, most and least coherent; label and contribution below each. None where the inputs are no pictures."""
    inputs = images(kept["inputs"]) if "inputs" in kept else None
    if inputs is None or len(inputs) < len(ranking.contributions):
        return None
    rows = ranking.ends(SHOWN)
    figure, axes = drawing.figure(2, len(rows[0]), width=7.2, height=1.25)
    scale = {"vmin": float(np.nanmin(inputs)), "vmax": float(np.nanmax(inputs))}
    for panels, indices, title in zip(axes, rows, ("most coherent", "least coherent")):
        for panel, index in zip(panels, indices.tolist()):
            _picture(panel, inputs[index], scale, corrupt=is_corrupt(kept, index))
            panel.set_xlabel(_below(ranking, kept, index), fontsize=7)
            figure.drawn.append(
                (
                    title,
                    f"example {place(kept, index)}",
                    ranking.step,
                    f"{ranking.contributions[index]:.6g}",
                    "",
                    "",
                )
            )  # type: ignore[attr-defined]
        panels[0].set_title(title, fontsize=8.5)
    return figure


def _picture(panel, image, scale, corrupt: bool) -> None:
    if image.ndim == 3:
        low, high = scale["vmin"], max(scale["vmax"], scale["vmin"] + 1e-12)
        panel.imshow((image - low) / (high - low))
    else:
        panel.imshow(image, cmap="gray_r", **scale)
    panel.grid(False)
    panel.set_xticks([])
    panel.set_yticks([])
    for side in panel.spines.values():
        side.set(
            visible=True,
            color=drawing.COLOUR["corrupt" if corrupt else "neutral"],
            linewidth=2.5 if corrupt else 0.5,
        )


def _below(ranking: Ranking, kept: dict[str, np.ndarray], index: int) -> str:
    lines = [ranking.said(index)]
    if "labels" in kept:
        lines.insert(0, f"label {kept['labels'][index]}")
    return "\n".join(lines + ["corrupt"] * is_corrupt(kept, index))
