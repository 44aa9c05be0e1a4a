"""The lab's look for figures of your own, at the width of a column, a page or a slide.

Imports matplotlib where it is used: the core lists `style`, too, and works without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FONTS = {"paper": 8.0, "page": 9.0, "slides": 14.0}
"""The size of text, in points: a figure is printed as wide as it is drawn."""
_GOLDEN = 0.62
_NARROW = 5.0  # inches: panels stand in one column


@contextmanager
def style(
    name: str = "paper",
    *,
    width: float | None = None,
    height: float | None = None,
    matplotlibrc: str | Path | None = None,
) -> Iterator[None]:
    """A context in which matplotlib draws with the lab's fonts, grid and lines.

    Args:
        name: how large text and lines are: "paper" (8 points), "page" (9) or "slides" (14).
        width: of a new figure, in inches, such as 3.3 for a column of a paper (default:
            matplotlib's own).
        height: the same; 0.62 times the width by default.
        matplotlibrc: a file of settings that come last, such as a journal's.

    Raises:
        ValueError: no style of this name, or a width or height that is not positive.
        OSError: the file cannot be read.

    >>> import matplotlib
    >>> with style("paper", width=3.3):
    ...     matplotlib.rcParams["figure.figsize"][0], matplotlib.rcParams["font.size"]
    (3.3, 8.0)
    """
    if name not in FONTS:
        raise ValueError(f"style(name): one of {', '.join(FONTS)}, got {name!r}.")
    if any(size is not None and not size > 0 for size in (width, height)):
        raise ValueError(f"style: width and height are inches above 0, got {width} and {height}.")
    import matplotlib

    from . import drawing

    with drawing.in_house_style():
        params: dict[str, Any] = matplotlib.rcParams  # type: ignore[assignment]
        factor = FONTS[name] / params["font.size"]
        for key in ("font.size", "axes.titlesize", "axes.labelsize", "legend.fontsize"):
            params[key] *= factor
        for key in ("xtick.labelsize", "ytick.labelsize", "lines.linewidth", "grid.linewidth"):
            params[key] *= factor
        if width is not None or height is not None:
            before = params["figure.figsize"][0]
            wide = before if width is None else width
            params["figure.figsize"] = wide, _GOLDEN * wide if height is None else height
        if matplotlibrc is not None:
            matplotlib.rc_file(matplotlibrc, use_default_template=False)
        yield


def plot(
    paths: Sequence[str | Path],
    quantities: Sequence[str],
    *,
    where: Sequence[str] = (),
) -> Figure:
    """What runs recorded over training: a panel a quantity, the mean over seeds with a 95 % band.

    As wide as `matplotlib.rcParams["figure.figsize"]` says, and each row of panels as high: call it
    inside `style` or `matplotlib.rc_context`.

    Args:
        paths: folders of runs.
        quantities: names of numbers in the records, such as "train_loss".
        where: conditions on settings, of runs to choose: `("noise=0.5",)`.

    Raises:
        FileNotFoundError: one of `paths` holds no run.
        ValueError: no run recorded one of the quantities.
    """
    import matplotlib

    from . import curves
    from .grouping import arms

    members = arms(paths, where)
    known = sorted({name for arm in members for name in arm.quantities("scalar")})
    for name in quantities:
        if name not in known:
            raise ValueError(f"plot(quantities): no {name!r} in these runs: {', '.join(known)}.")
    width, height = matplotlib.rcParams["figure.figsize"]
    columns = 1 if width < _NARROW else 2
    figure = curves.over_training(members, quantities, columns=columns)
    figure.set_size_inches(width, -(-len(quantities) // columns) * height)
    return figure
