"""Text messages, spam and not, as bags of words: real data whose features are rare."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import html
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from coherence.lab.data import fetching
from coherence.lab.data.dataset import Dataset

MIRRORS = ("https://archive.ics.uci.edu/static/public/228/",)
FILE, ARCHIVE = "SMSSpamCollection", "sms+spam+collection.zip"
# Of the uncompressed file, whoever packed it.
SHA256 = "7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d"
CLASSES = ("ham", "spam")


def sms_spam(
    words: int | None = 2000,
    *,
    counts: bool = False,
    examples: int | None = None,
    tests: int = 1000,
    seed: int = 0,
) -> Dataset:
    """Text messages as bags of words, float32 `[n, words]`; classes ham (0) and spam (1).

    1 where a word occurs, or with `counts` how often.
    Of messages sent word for word again (403 of 5,574) the first is kept: else training and test
    part would share them. About one in eight is spam, so calling everything ham has an accuracy
    near 0.87: look at the balanced accuracy, or at both classes'.

    A `seed` is a split: first the `tests` messages are drawn, then the `examples` (None: the rest),
    so that fewer are some of more. The words are the most frequent ones of the training part, at
    most so many (None: all), lower case, of two letters or more, in alphabetical order: the
    `features` of the data set. Words of test messages that are not among them are left out.

    The file, or UCI's archive that holds it, comes from `COHERENCE_DATA/sms-spam/`, the cache, or a
    download into the cache, whichever has it first; its checksum is verified every time.

    Args:
        words: the most frequent words of the training messages, at most so many (None: all).
        counts: how often a word occurs, instead of whether.
        examples: training messages (None: all that are not for testing).
        tests: test messages.
        seed: of the split.

    Almeida & Hidalgo, SMS Spam Collection (UCI, 2012).

    >>> sms_spam(words=100, tests=500).x_test.shape
    (500, 100)
    """
    (train, test), y = _split(examples, tests, seed)
    bags, vocabulary = _bags(train, test, words, counts)
    return Dataset(
        "sms-spam",
        bags[: len(train)],
        y[: len(train)],
        bags[len(train) :],
        y[len(train) :],
        CLASSES,
        vocabulary,
    )


def sms_messages() -> tuple[tuple[str, ...], np.ndarray]:
    """All 5,574 messages in the file's order, HTML entities decoded, and their labels.

    Labels are int32, 1 is spam.

    >>> messages, labels = sms_messages()
    >>> len(messages), int(labels.sum())
    (5574, 747)
    """
    return _parsed(_file_or_archive(fetching.read))


def fetch() -> list[Path]:
    """Where the file or the archive is, after downloading what is missing or damaged."""
    return [_file_or_archive(fetching.obtain)]


def check(file: Path) -> bytes:
    """The messages' bytes, out of the archive where it is one.

    Raises:
        ValueError: they are not the original's.
    """
    content = file.read_bytes()
    if zipfile.is_zipfile(io.BytesIO(content)):
        content = _member(content)
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        raise ValueError(f"its messages have SHA256 {digest}, expected {SHA256}")
    return content


def _member(content):
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if archive.getinfo(FILE).file_size > fetching.MAX_BYTES:
                raise ValueError(f"it would unpack to more than {fetching.MAX_BYTES:,} bytes")
            return archive.read(FILE)
    except Exception as error:  # a damaged header makes zipfile raise anything
        raise ValueError(f"no zip archive that holds {FILE}: {error}") from error


def _file_or_archive(find: Callable):
    """What `find` gives of the file, or of the archive, which can be downloaded."""
    with contextlib.suppress(FileNotFoundError):
        return find("sms-spam", FILE, (), check)
    return find("sms-spam", ARCHIVE, MIRRORS, check)


def _parsed(content):
    lines = [line.split("\t", 1) for line in content.decode("utf-8").split("\n") if line]
    texts = tuple(html.unescape(text) for _, text in lines)  # else lt and gt would be words
    return texts, np.array([CLASSES.index(label) for label, _ in lines], np.int32)


def _split(examples, tests, seed):
    """((messages to train on, to test on), their labels in that order); every message once."""
    texts, y = sms_messages()
    first = sorted({text: i for i, text in reversed(list(enumerate(texts)))}.values())
    rest = len(first) - tests
    if not 1 <= tests < len(first) or (examples is not None and not 1 <= examples <= rest):
        raise ValueError(
            f"sms_spam(examples, tests): at least one message each and {len(first):,} in all "
            f"(examples=None: those that are left), got examples={examples}, tests={tests}."
        )
    order = np.array(first)[np.random.default_rng([seed, 0x535]).permutation(len(first))]
    train, test = order[tests:][:examples], order[:tests]
    return tuple(tuple(texts[i] for i in part) for part in (train, test)), y[
        np.concatenate([train, test])
    ]


@functools.lru_cache(maxsize=2)
def _bags(train, test, words, counts):
    """`(bags [train + test, words], vocabulary)`; training messages come first.

    They alone decide the vocabulary.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    if words is not None and words < 1:
        raise ValueError(
            f"sms_spam(words): at least one word, or None for all of them, got {words}."
        )
    vectorizer = CountVectorizer(max_features=words, binary=not counts, dtype=np.float32).fit(train)
    bags = vectorizer.transform(train + test).toarray()
    bags.setflags(write=False)  # shared by all who ask for this set
    return bags, tuple(vectorizer.get_feature_names_out().tolist())
