"""Where downloaded data lives, and how it gets there: `COHERENCE_DATA`, the cache, mirrors."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

# Data sets that `coherence data fetch NAME` can download: name -> module with a `fetch()`.
FETCHABLE = {"mnist": "coherence.lab.data.handwritten_digits", "sms-spam": "coherence.lab.data.sms"}


def fetch(name: str) -> list[Path]:
    """Download what is missing or damaged of a data set; returns where its files are."""
    if name not in FETCHABLE:
        raise ValueError(
            f"fetch(name): {', '.join(FETCHABLE)} can be fetched, not {name!r}. "
            "The other data sets need no download."
        )
    return importlib.import_module(FETCHABLE[name]).fetch()


def cache() -> Path:
    """The folder for downloads: `COHERENCE_CACHE`, else the operating system's cache folder."""
    if os.environ.get("COHERENCE_CACHE"):
        return Path(os.environ["COHERENCE_CACHE"]).expanduser()
    import pooch

    return Path(pooch.os_cache("coherence"))


def read(dataset: str, name: str, mirrors: Sequence[str], check: Callable[[Path], bytes]) -> bytes:
    """The checked content of a file; downloaded only if it is nowhere.

    Raises:
        ValueError: a damaged file. It is never replaced in silence.
        FileNotFoundError: the file is nowhere, and no mirror gave it.
    """
    for file in _places(dataset, name):
        if file.is_file():
            try:
                return check(file)
            except ValueError as error:
                raise ValueError(
                    f"{file} is damaged: {error}. Delete it and run: coherence data fetch {dataset}"
                ) from error
    return check(_download(dataset, name, mirrors, check))


def obtain(dataset: str, name: str, mirrors: Sequence[str], check: Callable[[Path], bytes]) -> Path:
    """The path of a whole file, downloaded where it is missing, or damaged in the cache.

    Raises:
        ValueError: a damaged file in the user's own folder, which is not touched.
        FileNotFoundError: the file is nowhere, and no mirror gave it.
    """
    for file in _places(dataset, name):
        if file.is_file():
            try:
                check(file)
                return file
            except ValueError as error:
                if file.parent != cache() / dataset:
                    raise ValueError(
                        f"{file} is damaged: {error}. Replace or delete it, then run this again."
                    ) from error
    return _download(dataset, name, mirrors, check)


def _places(dataset: str, name: str) -> list[Path]:
    own = os.environ.get("COHERENCE_DATA")
    return ([Path(own).expanduser() / dataset / name] if own else []) + [cache() / dataset / name]


def _download(
    dataset: str, name: str, mirrors: Sequence[str], check: Callable[[Path], bytes]
) -> Path:
    """Into the cache by rename, so that a killed download leaves nothing that looks whole."""
    import pooch

    target = cache() / dataset / name
    part = target.with_name(f"{name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"cannot write to the cache {target.parent} ({error.strerror}). "
            "Set COHERENCE_CACHE to a folder you can write to."
        ) from error
    failures = []
    for mirror in mirrors:
        try:
            pooch.HTTPDownloader(timeout=60)(mirror + name, str(part), None)
            check(part)
            os.replace(part, target)
            return target
        except (OSError, ValueError) as error:  # no network, or another file at that address
            failures.append(f"{mirror}: {str(error)[:200]}")
        finally:
            part.unlink(missing_ok=True)
    folders = ", ".join(str(place.parent) for place in _places(dataset, name))
    raise FileNotFoundError(
        f"{dataset}: {name} is in none of {folders}, and no mirror gave it "
        f"({'; '.join(failures)}). With a network run: coherence data fetch {dataset}. "
        f"Without one, put the file into a folder {dataset}/ and set COHERENCE_DATA to the folder "
        "above it."
    )
