"""MNIST is the original's bytes, wherever they come from, or a clear error."""

import concurrent.futures
import contextlib
import functools
import gzip
import hashlib
import http.server
import os
import socketserver
import struct
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from coherence.lab import data
from coherence.lab.data import fetching, handwritten_digits

IMAGES = np.arange(5 * 28 * 28, dtype=np.uint8).reshape(5, 28, 28)
LABELS = np.array([5, 0, 4, 1, 9], np.uint8)


def idx_bytes(array: np.ndarray) -> bytes:
    return (
        bytes([0, 0, 8, array.ndim])
        + struct.pack(f">{array.ndim}i", *array.shape)
        + array.tobytes()
    )


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> Path:
    """Five examples in the four files, in a folder of their own.

    Nothing in COHERENCE_DATA, the cache or on a mirror.
    """
    folder = tmp_path / "source" / "mnist"
    folder.mkdir(parents=True)
    sums = {}
    for name in handwritten_digits.FILES:
        content = idx_bytes(IMAGES if "images" in name else LABELS)
        sums[name] = (hashlib.md5(content).hexdigest(), hashlib.sha256(content).hexdigest())
        (folder / name).write_bytes(gzip.compress(content))
    monkeypatch.setattr(handwritten_digits, "FILES", sums)
    monkeypatch.setattr(
        handwritten_digits, "MIRRORS", ("http://127.0.0.1:9/",)
    )  # the discard port: refused at once
    monkeypatch.setenv("COHERENCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("COHERENCE_DATA", raising=False)
    return folder


@pytest.fixture
def mirror(tiny):
    """The folder behind a real server on this machine; yields its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with served(functools.partial(Quiet, directory=str(tiny))) as address:
        yield address


@contextlib.contextmanager
def served(handler):
    """A server on this machine; yields its address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def test_pixels_are_in_the_unit_interval_and_labels_int32(tiny, monkeypatch):
    monkeypatch.setenv("COHERENCE_DATA", str(tiny.parent))
    loaded = data.mnist()
    assert (loaded.x_train.shape, loaded.x_train.dtype, loaded.y_train.dtype) == (
        (5, 784),
        np.float32,
        np.int32,
    )
    np.testing.assert_array_equal(loaded.x_train, IMAGES.reshape(5, 784) / np.float32(255))
    np.testing.assert_array_equal(loaded.y_test, LABELS)
    assert loaded.outputs == 10


def test_a_number_of_examples_takes_the_first_to_train_on_and_the_whole_test_set(tiny, monkeypatch):
    monkeypatch.setenv("COHERENCE_DATA", str(tiny.parent))
    loaded = data.mnist(2)
    np.testing.assert_array_equal(loaded.y_train, LABELS[:2])
    assert len(loaded.y_test) == 5
    for wrong in (0, 6):
        with pytest.raises(
            ValueError,
            match=rf"mnist\(examples\): (at least 1|there are 5 training examples).* got {wrong}",
        ):
            data.mnist(wrong)


def test_without_the_files_and_without_a_network_the_error_says_what_to_do(tiny):
    with pytest.raises(
        FileNotFoundError,
        match=r"train-images-idx3-ubyte\.gz is in none of .*coherence data fetch "
        r"mnist.*COHERENCE_DATA",
    ):
        data.mnist()


def test_a_download_goes_to_the_cache_once(tiny, mirror, monkeypatch, tmp_path):
    monkeypatch.setattr(
        handwritten_digits, "MIRRORS", ("http://127.0.0.1:9/", mirror)
    )  # the first mirror is down
    files = data.fetch("mnist")
    assert [file.parent for file in files] == [tmp_path / "cache" / "mnist"] * 4
    assert sorted(os.listdir(tmp_path / "cache" / "mnist")) == sorted(handwritten_digits.FILES)
    monkeypatch.setattr(handwritten_digits, "MIRRORS", ())
    np.testing.assert_array_equal(data.mnist().y_train, LABELS)


def test_a_mirror_with_something_else_is_passed_over_and_leaves_nothing(
    tiny, mirror, monkeypatch, tmp_path
):
    (tiny / "train-images-idx3-ubyte.gz").write_bytes(
        b"<html>Please sign in to the hotel's network</html>"
    )
    monkeypatch.setattr(handwritten_digits, "MIRRORS", (mirror,))
    with pytest.raises(FileNotFoundError, match=r"no mirror gave it \(.*not a whole gzip file"):
        data.mnist()
    assert os.listdir(tmp_path / "cache" / "mnist") == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda content: content[:-30], "not a whole gzip file"),
        (lambda content: b"PK" + content, "not a whole gzip file"),
        (
            lambda content: content[:40] + bytes([content[40] ^ 1]) + content[41:],
            "not a whole gzip file|have MD5",
        ),
        (
            lambda content: gzip.compress(gzip.decompress(content)[:-1]),
            "the uncompressed bytes have MD5 .*, expected ",
        ),
    ],
)
def test_a_damaged_file_is_named_with_what_was_expected_and_never_replaced_in_silence(
    tiny, mirror, monkeypatch, damage, said
):
    monkeypatch.setattr(handwritten_digits, "MIRRORS", (mirror,))
    monkeypatch.setenv("COHERENCE_DATA", str(tiny.parent))
    file = tiny / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(
        ValueError,
        match=rf"t10k-images-idx3-ubyte\.gz is damaged: .*({said}).*coherence data fetch mnist",
    ):
        data.mnist()
    with pytest.raises(
        ValueError, match=r"is damaged: .* Replace or delete it, then run this again"
    ):
        data.fetch("mnist")


def test_fetching_replaces_a_damaged_file_in_the_cache(tiny, mirror, monkeypatch, tmp_path):
    monkeypatch.setattr(handwritten_digits, "MIRRORS", (mirror,))
    data.fetch("mnist")
    file = tmp_path / "cache" / "mnist" / "train-labels-idx1-ubyte.gz"
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte\.gz is damaged"):
        data.mnist()
    data.fetch("mnist")
    np.testing.assert_array_equal(data.mnist().y_train, LABELS)


def test_another_file_of_the_same_md5_is_refused(tiny, monkeypatch):
    file = tiny / "train-labels-idx1-ubyte.gz"
    md5, sha256 = handwritten_digits.FILES[file.name]
    monkeypatch.setitem(handwritten_digits.FILES, file.name, (md5, sha256[::-1]))
    with pytest.raises(ValueError, match=f"bytes have SHA-256 {sha256}, expected {sha256[::-1]}"):
        handwritten_digits.check(file)


def test_two_that_fetch_at_once_download_each_file_once(tiny, monkeypatch, tmp_path):
    asked = []

    class Slow(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            time.sleep(0.05)  # the other one comes meanwhile
            super().do_GET()

        def log_message(self, *args):
            pass

    with served(functools.partial(Slow, directory=str(tiny))) as address:
        monkeypatch.setattr(handwritten_digits, "MIRRORS", (address,))
        with concurrent.futures.ThreadPoolExecutor() as pool:
            first, second = pool.map(data.fetch, ["mnist", "mnist"])
    assert first == second
    assert sorted(asked) == sorted(f"/{name}" for name in handwritten_digits.FILES)
    assert sorted(os.listdir(tmp_path / "cache" / "mnist")) == sorted(handwritten_digits.FILES)


@pytest.mark.parametrize(
    ("limit", "value", "said"),
    [
        ("MAX_BYTES", 10, "more than 10 bytes, which no file here has"),
        ("MAX_SECONDS", -1.0, "only [0-9]+ bytes in -1 seconds"),
    ],
)
def test_a_mirror_that_sends_without_an_end_is_given_up(
    tiny, mirror, monkeypatch, tmp_path, limit, value, said
):
    monkeypatch.setattr(handwritten_digits, "MIRRORS", (mirror,))
    monkeypatch.setattr(fetching, limit, value)
    with pytest.raises(FileNotFoundError, match=rf"no mirror gave it \(.*{said}"):
        data.mnist()
    assert os.listdir(tmp_path / "cache" / "mnist") == []


def test_a_download_that_ends_early_is_said(tiny, monkeypatch):
    class Short(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"a few")

        def log_message(self, *args):
            pass

    with served(Short) as address:
        monkeypatch.setattr(handwritten_digits, "MIRRORS", (address,))
        with pytest.raises(FileNotFoundError, match="ended 95 bytes early"):
            data.mnist()


def test_a_server_that_does_not_speak_http_is_passed_over(tiny, monkeypatch):
    class Mumbling(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(1000)
            self.request.sendall(b"220 mail.example ready\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Mumbling) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        monkeypatch.setattr(handwritten_digits, "MIRRORS", (address,))
        with pytest.raises(FileNotFoundError, match=r"no mirror gave it \(http://127.*220 mail"):
            data.mnist()
        thread.join()


def test_a_small_file_that_unpacks_to_a_large_one_is_refused(tiny, monkeypatch):
    monkeypatch.setattr(fetching, "MAX_BYTES", 1000)
    file = tiny / "train-images-idx3-ubyte.gz"
    file.write_bytes(gzip.compress(bytes(10**7)))
    first = hashlib.md5(bytes(1000)).hexdigest()  # of what was unpacked
    with pytest.raises(ValueError, match=f"have MD5 {first}"):
        handwritten_digits.check(file)


def test_a_cache_that_cannot_be_written_is_a_clear_error(tiny, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COHERENCE_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        OSError,
        match=r"cannot write to the cache .*Set COHERENCE_CACHE to a folder you can write to",
    ):
        data.mnist()


def test_what_cannot_be_fetched_says_what_can():
    with pytest.raises(
        ValueError, match=r"fetch\(name\): mnist, sms-spam can be fetched, not 'digits'"
    ):
        data.fetch("digits")


@pytest.mark.skipif(
    not (Path(os.environ.get("COHERENCE_DATA", "/nowhere")) / "mnist").is_dir(),
    reason="COHERENCE_DATA has no folder mnist",
)
def test_the_real_files_are_the_originals():
    loaded = data.mnist()
    assert (loaded.x_train.shape, loaded.x_test.shape) == ((60_000, 784), (10_000, 784))
    np.testing.assert_array_equal(
        np.bincount(loaded.y_train), [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    )
    assert (loaded.x_train.min(), loaded.x_train.max()) == (0, 1)
