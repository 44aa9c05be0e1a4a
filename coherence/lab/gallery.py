"""Figures from recorded arrays: PNG to look at, PDF to print, CSV with what was drawn, perhaps a GIF. Never imports JAX."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

from . import runs
from .experiment import load

FORMATS = ("png", "pdf", "csv")
FRAME_MILLISECONDS = 80


def checkout():
    """The folder with `experiments/` and `paper_figures/`: the working directory or the nearest one above it."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "experiments").is_dir() and (folder / "paper_figures").is_dir():
            return folder
    raise FileNotFoundError(
        f"no experiments/ and paper_figures/ in {here} or above it. They live in the project's repository: clone it and work inside."
    )


def names(checkout):
    """The figures of a checkout: stems of the files with recorded arrays."""
    return sorted(path.stem for path in (checkout / "paper_figures" / "recorded").glob("*.npz"))


def name(experiment, preset, usual):
    """A figure's name: the experiment's for the usual preset, else `EXPERIMENT-PRESET`."""
    return experiment if preset == usual else f"{experiment}-{preset}"


def stem(name):
    """The experiment that a figure shows: its file's stem in `experiments/` and `paper_figures/`."""
    return name.partition("-")[0]


def preset(name, usual):
    """The preset that a figure's name stands for: `usual` where it names none."""
    return name.partition("-")[2] or usual


def recording(checkout, name):
    """Where a figure's committed arrays are."""
    return checkout / "paper_figures" / "recorded" / f"{name}.npz"


def formats(checkout, name):
    """What a figure is drawn as: a GIF, too, where its file has `animate(recorded)`, grey frames as uint8 [frames, height, width]."""
    moves = "\ndef animate(" in (checkout / "paper_figures" / f"{stem(name)}.py").read_text()
    return (*FORMATS, "gif") if moves else FORMATS


def stale(checkout, name):
    """Why a figure must be redrawn, or `None`: its file, the shared style or the recorded arrays changed since it was drawn."""
    folder = checkout / "paper_figures"
    missing = [
        f"{name}.{suffix}"
        for suffix in formats(checkout, name)
        if not (folder / "drawn" / f"{name}.{suffix}").exists()
    ]
    if missing:
        return f"{missing[0]} is missing"
    drawn = _stamp(folder / "drawn" / f"{name}.png")
    changed = [
        label
        for label, digest in _sources(folder, name, recording(checkout, name)).items()
        if digest not in drawn
    ]
    return f"{' and '.join(changed)} changed" if changed else None


def draw(checkout, name, recorded=None, folder=None):
    """Draw one figure from recorded arrays (the committed ones, or a file of a run) into `folder`; the paths written."""
    from .report.drawing import in_house_style

    home = checkout / "paper_figures"
    recorded, folder = recorded or recording(checkout, name), folder or home / "drawn"
    module = load(home / f"{stem(name)}.py")
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{suffix}" for suffix in formats(checkout, name)]
    arrays = runs.load_arrays(recorded)
    with in_house_style():
        figure = module.draw(arrays)
        # No dates: an unchanged figure is unchanged bytes.
        figure.savefig(
            paths[0],
            metadata={
                "Software": None,
                "Source": " ".join(_sources(home, name, recorded).values()),
            },
        )
        figure.savefig(paths[1], metadata={"CreationDate": None, "Producer": None, "Creator": None})
    with open(paths[2], "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(
            [("panel", "curve", "x", "y", "low", "high"), *getattr(figure, "drawn", [])]
        )
    if len(paths) > len(FORMATS):
        _film(paths[-1], module.animate(arrays))
    return paths


def _film(path, frames):
    """Frames as a GIF that begins anew at its end; equal frames are equal bytes."""
    from PIL import Image

    if frames.dtype != "uint8" or frames.ndim != 3:
        raise ValueError(
            f"animate returns grey frames, uint8 [frames, height, width]; for {path.name} it gave {frames.dtype} of shape {frames.shape}."
        )
    first, *rest = map(Image.fromarray, frames)
    first.save(path, save_all=True, append_images=rest, duration=FRAME_MILLISECONDS, loop=0)


def _sources(home, name, recorded):
    report = Path(__file__).parent / "report"
    files = {
        f"{stem(name)}.py": [home / f"{stem(name)}.py"],
        "style": [home / "style.py", report / "drawing.py", report / "house.mplstyle"],
        "recorded arrays": [Path(recorded)],
    }
    return {
        label: hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]
        for label, paths in files.items()
    }


def _stamp(png):
    from PIL import Image

    with Image.open(png) as image:
        return image.info.get("Source", "")
