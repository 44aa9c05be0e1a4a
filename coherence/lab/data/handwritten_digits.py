"""Handwritten digits: the small ones that scikit-learn bundles, and MNIST."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import zlib
from pathlib import Path

import numpy as np

from coherence.lab.data import fetching
from coherence.lab.data.dataset import Dataset

TEST_EXAMPLES = 360  # of the bundled digits

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)

# Of the *uncompressed* bytes, for every mirror compresses differently: MD5, which others publish,
# and SHA-256, which nobody can forge.
FILES = {
    "train-images-idx3-ubyte.gz": (
        "6bbc9ace898e44ae57da46a324031adb",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "train-labels-idx1-ubyte.gz": (
        "a25bea736e30d166cdddb491f175f624",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    "t10k-images-idx3-ubyte.gz": (
        "2646ac647ad5339dbf082846283269ea",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "27ae3e4e09519cfbb04c329615203637",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
}


def digits(examples: int | None = None) -> Dataset:
    """1,797 handwritten digits of 8 x 8 pixels, flat, float32 in [0, 1]; 10 classes.

    The 17 grey levels are divided by 16.
    The split is always the same: 1,437 to train on and 360 to test on, each class in proportion to
    within one example. Writers appear on both sides of it, so the test accuracy says nothing about
    new writers.

    Args:
        examples: use so many training examples (None: all): the first, in experiments by default a
            draw by seed; the test set stays whole.

    Alpaydin & Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998), its test part, as
    bundled with scikit-learn.
    """
    table = np.loadtxt(_bundled_file(), np.int32, delimiter=",")
    x, y = (table[:, :-1] / 16).astype(np.float32), table[:, -1].copy()
    train, test = _split(y)
    if examples is not None and not 1 <= examples <= len(train):
        raise ValueError(
            f"digits(examples): from 1 to {len(train)}, or None for all of them; got {examples}."
        )
    train = train[:examples]
    return Dataset("digits", x[train], y[train], x[test], y[test], tuple("0123456789"))


def _bundled_file() -> Path:
    """The file that scikit-learn bundles; importing scikit-learn would take a second."""
    package = importlib.util.find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError(
            "digits are bundled with scikit-learn, which is not installed: pip install scikit-learn"
        )
    return Path(package.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"


def _split(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices to train and to test on, both in shuffled order so that any prefix is mixed."""
    n = len(labels)
    # The legacy stream: the one that numpy never changes.
    order = np.random.RandomState(0).permutation(n)
    # Walk through the shuffled examples class by class and take every (n / TEST_EXAMPLES)-th: exact
    # total, proportional classes.
    taken = np.diff(np.arange(n + 1) * TEST_EXAMPLES // n).astype(bool)
    test = np.empty(n, bool)
    test[np.argsort(labels[order], kind="stable")] = taken
    return order[~test], order[test]


def mnist(examples: int | None = None) -> Dataset:
    """60,000 + 10,000 handwritten digits of 28 x 28 pixels, flat, float32 in [0, 1]; 10 classes.

    Grey levels are divided by 255. The four files come from `COHERENCE_DATA/mnist/`, the cache, or
    a download into the cache, whichever has them first; their checksums are verified every time.

    Args:
        examples: use so many training examples (None: all): the first, in experiments by default a
            draw by seed; the test set stays whole.

    LeCun, Cortes & Burges, The MNIST database of handwritten digits.
    """
    if examples is not None and examples < 1:
        raise ValueError(f"mnist(examples): at least 1, or None for all of them; got {examples}.")
    x_train, y_train, x_test, y_test = (
        _parse(fetching.read("mnist", name, MIRRORS, check)) for name in FILES
    )
    if examples is not None and examples > len(x_train):
        raise ValueError(
            f"mnist(examples): there are {len(x_train)} training examples, got {examples}."
        )
    return Dataset(
        "mnist",
        _pixels(x_train[:examples]),
        _labels(y_train[:examples]),
        _pixels(x_test),
        _labels(y_test),
        tuple("0123456789"),
    )


def fetch() -> list[Path]:
    """Where the four files are, after downloading what is missing or damaged."""
    return [fetching.obtain("mnist", name, MIRRORS, check) for name in FILES]


def check(file: Path) -> bytes:
    """The uncompressed content of one of the files, if it is the original's; ValueError else."""
    try:
        with gzip.open(file) as packed:
            content = packed.read(fetching.MAX_BYTES)  # a small file may unpack to any size
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"not a whole gzip file: {error}") from error
    md5, sha256 = FILES[file.name.removesuffix(".part")]
    for name, expected, digest in (
        ("MD5", md5, hashlib.md5(content, usedforsecurity=False).hexdigest()),
        ("SHA-256", sha256, hashlib.sha256(content).hexdigest()),
    ):
        if digest != expected:
            raise ValueError(f"the uncompressed bytes have {name} {digest}, expected {expected}")
    return content


def _parse(content: bytes) -> np.ndarray:
    # Two zero bytes, the type (8: uint8), the number of axes, then each axis as a big-endian int32.
    shape = np.frombuffer(content, ">i4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape)


def _pixels(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32) / 255


def _labels(labels: np.ndarray) -> np.ndarray:
    return labels.astype(np.int32)
