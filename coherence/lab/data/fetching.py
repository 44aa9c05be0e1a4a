"""Where downloaded data lives, and how it gets there: `COHERENCE_DATA`, the cache, mirrors."""

from __future__ import annotations

import http.client
import importlib
import os
import ssl
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from coherence.lab.runs.locks import Lock
from coherence.lab.suggestions import suggestion

MAX_BYTES = 64 * 2**20
"""Of a file, downloaded or unpacked: the largest, MNIST's training images, unpacks to 47 MB."""
MAX_SECONDS = 600.0
"""Of the download of one file."""
_SILENCE = 60.0  # seconds without a byte after which a mirror is given up
_CHUNK = 65536

# Data sets that `coherence data fetch NAME` can download: name -> module with a `fetch()`.
FETCHABLE = {"mnist": "coherence.lab.data.handwritten_digits", "sms-spam": "coherence.lab.data.sms"}


def fetch(name: str) -> list[Path]:
    """Download what is missing or damaged of a data set; returns where its files are.

    >>> sorted(FETCHABLE)
    ['mnist', 'sms-spam']
    >>> fetch("letters")
    Traceback (most recent call last):
        ...
    ValueError: fetch(name): mnist, sms-spam can be fetched, not 'letters'. ...
    """
    if name not in FETCHABLE:
        raise ValueError(
            f"fetch(name): {', '.join(FETCHABLE)} can be fetched, not {name!r}. "
            f"The other data sets need no download.{suggestion(name, FETCHABLE)}"
        )
    return importlib.import_module(FETCHABLE[name]).fetch()


def cache() -> Path:
    """The folder for downloads: `COHERENCE_CACHE`, else the operating system's cache folder."""
    if os.environ.get("COHERENCE_CACHE"):
        return Path(os.environ["COHERENCE_CACHE"]).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("coherence"))


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
    target = cache() / dataset / name
    folders = ", ".join(str(place.parent) for place in _places(dataset, name))
    if not mirrors:  # nothing to download: the cache need not be one that can be written to
        raise FileNotFoundError(f"{dataset}: {name} is in none of {folders}.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = Lock(cache(), wait=True)
    except OSError as error:
        raise OSError(
            f"cannot write to the cache {target.parent} ({error.strerror}). "
            "Set COHERENCE_CACHE to a folder you can write to."
        ) from error
    failures = []
    with lock:
        if _is_whole(target, check):  # another process has just brought it
            return target
        for mirror in mirrors:
            try:
                _bring(mirror + name, target, check)
                return target
            except (OSError, ValueError, http.client.HTTPException) as error:
                # No network, no server that speaks HTTP, or another file at that address.
                failures.append(f"{mirror}: {str(error)[:200]}")
    raise FileNotFoundError(
        f"{dataset}: {name} is in none of {folders}, and no mirror gave it "
        f"({'; '.join(failures)}). With a network run: coherence data fetch {dataset}. "
        f"Without one, put the file into a folder {dataset}/ and set COHERENCE_DATA to the folder "
        "above it."
    )


def _is_whole(file: Path, check: Callable[[Path], bytes]) -> bool:
    try:
        check(file)
    except (FileNotFoundError, ValueError):
        return False
    return True


def _bring(address: str, target: Path, check: Callable[[Path], bytes]) -> None:
    part = target.with_name(f"{target.name}.part")
    try:
        _copy(address, part)
        check(part)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _copy(address: str, file: Path) -> None:
    """What is at an address, within the limits."""
    import certifi

    trusted = ssl.create_default_context()  # the system's certificates, which some Pythons lack
    trusted.load_verify_locations(certifi.where())
    end, size = time.monotonic() + MAX_SECONDS, 0
    with (
        urllib.request.urlopen(address, timeout=_SILENCE, context=trusted) as response,
        open(file, "wb") as opened,
    ):
        while chunk := response.read1(_CHUNK):
            size += len(chunk)
            if size > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES:,} bytes, which no file here has")
            if time.monotonic() > end:
                raise TimeoutError(f"only {size:,} bytes in {MAX_SECONDS:g} seconds")
            opened.write(chunk)
        if response.length:
            raise ValueError(f"the connection ended {response.length:,} bytes early")
