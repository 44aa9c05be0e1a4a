"""Figures of a checkout, drawn from recorded arrays as PNG, PDF, CSV and perhaps GIF.

Never imports JAX.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from coherence.lab import runs
from coherence.lab.experiment import load
from coherence.lab.runs.files import replacing

from .tables import write_csv

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

WORKING = ("experiments", "paper_figures")
"""What a working folder has."""
INSTALLED = Path(__file__).parents[1] / "working_folder"
"""The one that a wheel carries; `setup.py` puts it there."""
_PROJECT = Path(__file__).parents[3]  # the repository, where the package is installed from it
FORMATS = ("png", "pdf", "csv")
COLUMNS = ("panel", "curve", "x", "y", "low", "high")
"""Of a figure's CSV."""
_FRAME_MILLISECONDS = 80
_PNG_COMPRESSION = 3  # of 9: as small within 4 % as the default, in half of its time


def checkout(*, write: bool = False) -> Path:
    """The folder with `experiments/` and `paper_figures/`, whose files commands run.

    The working directory, or the project's repository around it; else, to be read only, what the
    installed package carries. Folders of others above are left alone: their files would be run
    unasked.

    Raises:
        FileNotFoundError: there is none, or none to write to.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if _is_working_folder(folder) and (folder == here or _is_project(folder)):
            return folder
    if _is_working_folder(INSTALLED) and not write:
        return INSTALLED
    raise FileNotFoundError(
        f"no experiments/ and paper_figures/ in {here}, and it is not inside the project's "
        "repository, where they live. `coherence init FOLDER` writes a folder that has them; "
        "change to it, or clone the project and work inside."
    )


def init(folder: Path) -> Path:
    """Write a working folder: experiments, their claims, figures and recorded arrays.

    Raises:
        FileExistsError: the folder has something in it.
        FileNotFoundError: the package was installed without them, as from a checkout, which is one.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"init: {folder} is there and not empty; name a new folder.")
    source = INSTALLED if _is_working_folder(INSTALLED) else _PROJECT
    if not _is_working_folder(source):
        raise FileNotFoundError(
            "init: this installation carries no experiments; clone the project and work inside."
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name in WORKING:
        leave_out = shutil.ignore_patterns("__pycache__", "drawn", "README.md")
        shutil.copytree(source / name, folder / name, ignore=leave_out)
    return folder


def _is_working_folder(folder: Path) -> bool:
    return all((folder / name).is_dir() for name in WORKING)


def _is_project(folder: Path) -> bool:
    file = folder / "pyproject.toml"
    return file.is_file() and 'name = "gradient-coherence"' in file.read_text(errors="replace")


def names(checkout: Path) -> list[str]:
    """Names of the recorded figures of a checkout, sorted."""
    return sorted(path.stem for path in (checkout / "paper_figures" / "recorded").glob("*.npz"))


def name(experiment: str, preset: str, usual: str) -> str:
    """A figure's name: the experiment's for the usual preset, else `EXPERIMENT-PRESET`."""
    return experiment if preset == usual else f"{experiment}-{preset}"


def stem(name: str) -> str:
    """The experiment that a figure shows: its stem in `experiments/` and `paper_figures/`."""
    return name.partition("-")[0]


def preset(name: str, usual: str) -> str:
    """The preset that a figure's name stands for: `usual` where it names none."""
    return name.partition("-")[2] or usual


def recording(checkout: Path, name: str) -> Path:
    """The file of a figure's committed arrays."""
    return checkout / "paper_figures" / "recorded" / f"{name}.npz"


def formats(checkout: Path, name: str) -> tuple[str, ...]:
    """What a figure is drawn as: two pages where its file has `draw_2`, a GIF where `animate`.

    Both pages continue one row of letters. `animate(recorded)` returns grey frames as uint8
    [frames, height, width].
    """
    source = (checkout / "paper_figures" / f"{stem(name)}.py").read_text()
    second = tuple(f"2.{suffix}" for suffix in FORMATS) if "\ndef draw_2(" in source else ()
    return (*FORMATS, *second, *(("gif",) if "\ndef animate(" in source else ()))


def stale(checkout: Path, name: str) -> str | None:
    """Why a figure must be redrawn, or None: its file, the style or the recorded arrays changed."""
    folder = checkout / "paper_figures"
    for suffix in formats(checkout, name):
        if not (folder / "drawn" / f"{name}.{suffix}").exists():
            return f"{name}.{suffix} is missing"
    try:
        drawn = _stamp(folder / "drawn" / f"{name}.png")
    except Exception:  # whatever a reader of images says of a damaged one
        return f"{name}.png is damaged"
    sources = _digests(folder, name, recording(checkout, name))
    changed = [label for label, digest in sources.items() if digest not in drawn]
    return f"{' and '.join(changed)} changed" if changed else None


def draw(
    checkout: Path,
    name: str,
    recorded: Path | None = None,
    folder: Path | None = None,
    *,
    quick: bool = False,
) -> list[Path]:
    """Draw one figure and return the paths written.

    Args:
        checkout: where the figure's file is.
        name: the figure's.
        recorded: a file of recorded arrays; the committed one by default.
        folder: where to draw; `paper_figures/drawn` by default.
        quick: leave out the PDF, and the layout in which nothing overlaps: most of the time.

    Raises:
        ValueError: frames of an animation that are no grey pictures.
    """
    from .drawing import freeze_layout, in_house_style

    home = checkout / "paper_figures"
    recorded, folder = recorded or recording(checkout, name), folder or home / "drawn"
    module = load(home / f"{stem(name)}.py")
    folder.mkdir(parents=True, exist_ok=True)
    paths = {suffix: folder / f"{name}.{suffix}" for suffix in formats(checkout, name)}
    if quick:
        paths = {suffix: path for suffix, path in paths.items() if path.suffix != ".pdf"}
    arrays, source = runs.load_arrays(recorded), " ".join(_digests(home, name, recorded).values())
    with in_house_style():
        if "gif" in paths:
            _film(paths["gif"], module.animate(arrays))
        # The first page's PNG last: it says what all of them were drawn from.
        for page, function in (("2.", "draw_2"), ("", "draw")):
            if f"{page}png" in paths:
                figure = getattr(module, function)(arrays)
                if quick:
                    figure.set_layout_engine(None)
                freeze_layout(figure)
                write_csv(paths[f"{page}csv"], COLUMNS, getattr(figure, "drawn", []))
                if f"{page}pdf" in paths:
                    write_pdf(figure, paths[f"{page}pdf"])
                write_png(figure, paths[f"{page}png"], source)
    return list(paths.values())


def write_pdf(figure: Figure, path: Path) -> None:
    """Without dates: an unchanged figure is unchanged bytes."""
    with replacing(path) as file, _plain_fonts():
        nothing = {"CreationDate": None, "Producer": None, "Creator": None}
        figure.savefig(file, format="pdf", metadata=nothing)


def write_png(figure: Figure, path: Path, source: str) -> None:
    with replacing(path) as file:
        figure.savefig(
            file,
            format="png",
            metadata={"Software": None, "Source": source},
            pil_kwargs={"compress_level": _PNG_COMPRESSION},
        )


@contextmanager
def _plain_fonts() -> Iterator[None]:
    """Fonts are embedded without their tables for typesetting, which a PDF has no use for.

    Cutting those tables down to the letters in use takes a third of the time of drawing a PDF.
    """
    from fontTools import subset

    class Options(subset.Options):
        def __init__(self, **options):
            super().__init__(**options)
            self.drop_tables: list[str]
            self.drop_tables += ["GSUB", "GPOS", "GDEF", "kern"]

    usual, subset.Options = subset.Options, Options
    try:
        yield
    finally:
        subset.Options = usual


def _film(path: Path, frames: NDArray) -> None:
    """Frames as a GIF that begins anew at its end; equal frames are equal bytes."""
    from PIL import Image

    if frames.dtype != "uint8" or frames.ndim != 3:
        raise ValueError(
            "animate returns grey frames, uint8 [frames, height, width]; "
            f"for {path.name} it gave {frames.dtype} of shape {frames.shape}."
        )
    first, *rest = map(Image.fromarray, frames)
    options = {"save_all": True, "duration": _FRAME_MILLISECONDS, "loop": 0}
    with replacing(path) as file:
        first.save(file, format="gif", append_images=rest, **options)


def _digests(home: Path, name: str, recorded: Path) -> dict[str, str]:
    """Of everything that a figure is made of, by a label to read."""
    report = Path(__file__).parent
    sources = {
        f"{stem(name)}.py": [home / f"{stem(name)}.py"],
        "style": [report / "drawing.py", report / "house.mplstyle"],
        "recorded arrays": [recorded],
    }
    return {
        label: hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]
        for label, paths in sources.items()
    }


def _stamp(png: Path) -> str:
    """The digests that a whole figure was drawn from."""
    from PIL import Image

    with Image.open(png) as image:
        source = image.info.get("Source", "")
        image.verify()
    return source
