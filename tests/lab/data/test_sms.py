"""Messages are the original's, wherever they come from.

Bags of words know the training part alone.
"""

import functools
import hashlib
import http.server
import os
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

from coherence.lab import data
from coherence.lab.cli import main
from coherence.lab.data import sms

LINES = [
    "ham\tSee you at home",
    "spam\tFree prize\tcall now",
    "ham\tSee you at home",
    "spam\tfree FREE cash",
    "ham\tok, see you",
    "ham\t<i>call</i> me £5",
]
CONTENT = ("\n".join(LINES) + "\n").encode()


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Six messages, of which one came twice.

    Nothing in COHERENCE_DATA, the cache or on a mirror.
    """
    made = tmp_path / "source" / "sms-spam"
    made.mkdir(parents=True)
    (made / sms.FILE).write_bytes(CONTENT)
    monkeypatch.setattr(sms, "SHA256", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(
        sms, "MIRRORS", ("http://127.0.0.1:9/",)
    )  # the discard port: refused at once
    monkeypatch.setenv("COHERENCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("COHERENCE_DATA", raising=False)
    return made


@pytest.fixture
def own(folder, monkeypatch):
    monkeypatch.setenv("COHERENCE_DATA", str(folder.parent))
    return folder


@pytest.fixture
def mirror(folder, tmp_path, monkeypatch):
    """UCI's archive behind a real server on this machine; yields the archive's path."""
    served = tmp_path / "served"
    served.mkdir()
    packed(served / sms.ARCHIVE)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(served))
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr(sms, "MIRRORS", (f"http://127.0.0.1:{server.server_port}/",))
        yield served / sms.ARCHIVE
        server.shutdown()
        thread.join()


def packed(path, member=sms.FILE, content=CONTENT):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("readme", "about the messages")
        archive.writestr(member, content)


def words(messages):
    """The words of every message, training ones first, by the names of the features."""
    return [
        {word: int(n) for word, n in zip(messages.features, row) if n}
        for row in (*messages.x_train, *messages.x_test)
    ]


def test_messages_are_read_in_order_with_their_labels(own):
    texts, labels = data.sms_messages()
    assert texts[1] == "Free prize\tcall now"  # only the first tab ends the label
    assert len(texts) == 6
    np.testing.assert_array_equal(labels, [0, 1, 0, 1, 0, 0])
    assert labels.dtype == np.int32


def test_entities_of_html_are_what_they_stand_for_and_no_words():
    texts, labels = sms._parsed(b"ham\tsee you &lt;#&gt; min &amp; bye\nspam\twin\n")
    assert texts == ("see you <#> min & bye", "win")
    assert labels.tolist() == [0, 1]


def test_a_message_sent_twice_is_on_one_side_only(own):
    for seed in range(5):
        built = data.sms_spam(None, tests=2, seed=seed)
        assert (len(built.y_train), len(built.y_test)) == (3, 2)
        assert built.y_train.sum() + built.y_test.sum() == 2
        assert built.classes == ("ham", "spam")
        assert built.x_train.dtype == np.float32


def test_the_vocabulary_names_the_features_and_knows_training_messages_alone(own):
    bags = {
        "see you at home": {"see", "you", "at", "home"},
        "free": {"free", "cash"},
        "prize": {"free", "prize", "call", "now"},
    }
    for seed in range(5):
        messages = data.sms_spam(None, tests=2, seed=seed)
        found = words(messages)
        known = set(messages.features)
        assert known == set().union(*found[:3])
        assert all(set(bag) <= known for bag in found[3:])
        assert any(set(bag) == bags["free"] for bag in found[:3]) == ("cash" in known)
        assert list(messages.features) == sorted(known)


def test_words_are_present_or_counted(own):
    texts = [
        words(data.sms_spam(None, counts=counts, tests=1, seed=seed))
        for counts in (False, True)
        for seed in range(4)
    ]
    assert max(n for found in texts[:4] for bag in found for n in bag.values()) == 1
    assert max(n for found in texts[4:] for bag in found for n in bag.values()) == 2  # free FREE


def test_fewer_words_are_the_most_frequent_and_fewer_messages_some_of_more(own):
    counts = data.sms_spam(None, tests=1, seed=3)
    frequency = dict(zip(counts.features, counts.x_train.sum(0)))
    (chosen,) = data.sms_spam(1, tests=1, seed=3).features
    assert frequency[chosen] == max(frequency.values())
    some = words(data.sms_spam(None, examples=2, tests=1, seed=3))
    assert some[:2] == words(data.sms_spam(None, tests=1, seed=3))[:2]
    np.testing.assert_array_equal(
        data.sms_spam(None, examples=2, tests=1, seed=3).y_test, counts.y_test
    )


@pytest.mark.parametrize(
    "wrong", [{"examples": 5, "tests": 1}, {"examples": 0}, {"tests": 0}, {"tests": 5}]
)
def test_more_messages_than_there_are_are_refused(own, wrong):
    with pytest.raises(
        ValueError,
        match=r"sms_spam\(examples, tests\): at least one message each and 5 in all .*, got "
        r"examples=",
    ):
        data.sms_spam(None, **{"tests": 1, **wrong})


def test_no_words_are_refused(own):
    with pytest.raises(
        ValueError, match=r"sms_spam\(words\): at least one word, or None for all of them, got 0"
    ):
        data.sms_spam(0, tests=1)


def test_without_the_file_and_without_a_network_the_error_says_what_to_do(folder):
    with pytest.raises(
        FileNotFoundError,
        match=r"spam\+collection\.zip is in none of .*coherence data fetch "
        r"sms-spam.*COHERENCE_DATA",
    ):
        data.sms_messages()


def test_the_archive_is_downloaded_into_the_cache_once(
    folder, mirror, monkeypatch, tmp_path, capsys
):
    main(["data", "fetch", "sms-spam"])
    cached = tmp_path / "cache" / "sms-spam" / sms.ARCHIVE
    assert str(cached) in capsys.readouterr().out
    assert os.listdir(cached.parent) == [sms.ARCHIVE]
    monkeypatch.setattr(sms, "MIRRORS", ())
    assert data.sms_messages()[0][3] == "free FREE cash"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: packed(path, "another"), f"no zip archive that holds {sms.FILE}"),
        (lambda path: packed(path, content=CONTENT[:-1]), "its messages have SHA256 .*, expected "),
        (
            lambda path: path.write_bytes(b"<html>Please sign in to the hotel's network</html>"),
            "its messages have SHA256",
        ),
    ],
)
def test_a_mirror_with_something_else_is_passed_over_and_leaves_nothing(
    mirror, tmp_path, damage, said
):
    damage(mirror)
    with pytest.raises(FileNotFoundError, match=rf"no mirror gave it \(.*{said}"):
        data.sms_messages()
    assert os.listdir(tmp_path / "cache" / "sms-spam") == []


def test_the_users_own_file_comes_first_and_may_be_the_archive(own, mirror, tmp_path):
    (tmp_path / "cache").touch()  # no folder, so nothing can be written to it
    assert data.fetch("sms-spam") == [own / sms.FILE]
    (own / sms.FILE).unlink()
    packed(own / sms.ARCHIVE)
    assert data.fetch("sms-spam") == [own / sms.ARCHIVE]
    assert len(data.sms_messages()[0]) == 6
    (own / sms.ARCHIVE).unlink()
    with pytest.raises(OSError, match="cannot write to the cache"):
        data.sms_messages()


def test_a_damaged_file_is_named_and_never_replaced_in_silence(own, mirror):
    (own / sms.FILE).write_bytes(CONTENT[:-5])
    with pytest.raises(
        ValueError,
        match=r"SMSSpamCollection is damaged: its messages have SHA256 .*coherence data fetch "
        r"sms-spam",
    ):
        data.sms_messages()
    with pytest.raises(
        ValueError, match=r"is damaged: .* Replace or delete it, then run this again"
    ):
        data.fetch("sms-spam")


@pytest.mark.skipif(
    not (Path(os.environ.get("COHERENCE_DATA", "/nowhere")) / "sms-spam").is_dir(),
    reason="COHERENCE_DATA has no folder sms-spam",
)
def test_the_real_messages_are_the_originals():
    texts, labels = data.sms_messages()
    assert (len(texts), labels.sum(), len(set(texts))) == (5574, 747, 5171)
    built = data.sms_spam(words=100)
    assert (built.x_train.shape, built.x_test.shape, set(np.unique(built.x_train))) == (
        (4171, 100),
        (1000, 100),
        {0.0, 1.0},
    )
    assert "free" in data.sms_spam(words=200).features
