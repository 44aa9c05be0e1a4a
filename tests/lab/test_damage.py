"""Whatever is cut off or flips in a file: it reads as it was written, or is refused by name.

A few hundred damages of each kind of file; `COHERENCE_DAMAGES=10000` tries as many.
"""

import contextlib
import gzip
import hashlib
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from coherence.lab import cli, data, runs
from coherence.lab.data import handwritten_digits, sms
from coherence.lab.report import describe
from coherence.lab.runs import Run
from coherence.lab.runs.files import Damaged, read_json, this_process, write_text

DAMAGES = int(os.environ.get("COHERENCE_DAMAGES", "200"))


def damaged(file):
    """The file with another damage each time, `DAMAGES` of them: cuts, flipped bits, zeros."""
    whole, rng = file.read_bytes(), np.random.default_rng(0)
    for number in range(DAMAGES):
        content, at = bytearray(whole), int(rng.integers(len(whole)))
        if number % 4 == 0:
            del content[at:]
        elif number % 4 == 1:
            content[at : at + 16] = bytes(len(content[at : at + 16]))
        else:
            content[at] ^= 1 << int(rng.integers(8))
        if content != whole:
            file.write_bytes(content)
            yield number
    file.write_bytes(whole)


def text(value):
    """Every value and type, to compare; nan is nan."""
    if isinstance(value, dict):
        return {str(name): text(part) for name, part in sorted(value.items())}
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    return repr(value)


def check(file, read, refusals=(Damaged,), least=0.5):
    """`read()` is refused, with the file's name, or gives what it gave of the whole file."""
    whole, refused, nameless = text(read()), 0, 0
    for number in damaged(file):
        try:
            found = read()
        except refusals as error:
            refused += 1
            nameless += file.name not in str(error)
            continue
        assert text(found) == whole, f"damage {number} of {file.name} is read"
    assert not nameless
    assert refused > least * DAMAGES, refused  # or the damages harm nothing


CONFIG = {"learning_rate": 0.1, "model": {"kind": "MLP", "width": 64}, "steps": 20, "name": "ü"}


@pytest.fixture
def run(tmp_path):
    """A run that was killed after a checkpoint."""
    made = Run.open(tmp_path / "seed=3", CONFIG, seed=3, manifest={"axes": {"x": ["group"]}})
    for step in range(20):
        made.append({"step": step, "loss": 1 / (1 + step), "x": [float("nan"), 2.0]})
    made.save("params", w=np.arange(6.0).reshape(2, 3), b=np.float32(3))
    made.checkpoint(19, {"w": np.arange(6.0), "key": np.arange(2, dtype=np.uint32)})
    yield made
    made.close()


def test_what_a_run_is_resumed_from(run):
    run.close()
    restore = lambda: {step: run.restore(step) for step in run.checkpoints()}
    whole = text(restore())
    for name in ("checkpoint-19.npz", "metrics.jsonl"):
        used = 0
        for number in damaged(run.path / name):
            found = restore()
            used += bool(found)
            assert not found or text(found) == whole, f"damage {number} of {name} is resumed from"
        assert used < 0.5 * DAMAGES


@pytest.mark.parametrize("name", ["config.json", "manifest.json", "DONE", "metrics.jsonl"])
def test_a_finished_run(run, name):
    run.finish({"step": 19, "best_metric": 0.25})

    def read():
        found = Run.read(run.path)
        return {**found.manifest, "config": found.config, "records": found.records()} | {
            "seed": found.seed,
            "summary": found.summary,
            "ended": found.finished_at,
        }

    check(run.path / name, read)


def test_arrays_of_a_run(run):
    check(run.path / "params.npz", lambda: run.load("params"))


@pytest.mark.parametrize("name", ["config.json", "manifest.json", "DONE", "metrics.jsonl"])
def test_looking_at_a_damaged_run_ends_in_a_line(run, name, capsys):
    run.finish({"step": 19})
    with Run.open(run.path.with_name("seed=4"), CONFIG, seed=4) as other:
        other.append({"step": 0, "loss": 1.0})
    for count, _ in enumerate(damaged(run.path / name)):
        if count % 25:  # drawing text takes a while
            continue
        with contextlib.suppress(SystemExit):
            cli.main(["show", str(run.path)])
        assert capsys.readouterr().err.count("\n") <= 1
        assert "seed=4" in describe(run.path.parent)


def saved(folder, save):
    file = folder / "mine.npz"
    x, y = np.arange(24, dtype=np.uint8).reshape(4, 6), np.arange(4) % 3
    save(file, x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
    return file


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed, runs.save_arrays])
def test_a_users_arrays(tmp_path, save):
    file = saved(tmp_path, save)
    check(file, lambda: vars(data.npz(file)), refusals=(ValueError,))


def test_digits_of_the_original_format(tmp_path, monkeypatch):
    name = "t10k-labels-idx1-ubyte.gz"
    content = bytes([0, 0, 8, 1, 0, 0, 0, 200]) + bytes(range(200))
    sums = (hashlib.md5(content).hexdigest(), hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(handwritten_digits.FILES, name, sums)
    file = tmp_path / name
    file.write_bytes(gzip.compress(content))
    whole = handwritten_digits.check(file)
    for number in damaged(file):
        try:
            assert handwritten_digits.check(file) == whole, number
        except ValueError:
            continue


@pytest.mark.parametrize("packed", [False, True])
def test_messages_packed_or_not(tmp_path, monkeypatch, packed):
    content = b"ham\thello there\nspam\tfree cash now\n" * 5
    monkeypatch.setattr(sms, "SHA256", hashlib.sha256(content).hexdigest())
    file = tmp_path / (sms.ARCHIVE if packed else sms.FILE)
    if packed:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(sms.FILE, content)
    else:
        file.write_bytes(content)
    refused = 0
    for number in damaged(file):
        try:
            assert sms.check(file) == content, number
        except ValueError:
            refused += 1
    assert refused > 0.5 * DAMAGES


def test_recordings_of_a_checkout(tmp_path):
    file = tmp_path / "toy.npz"
    settings = json.dumps(CONFIG)
    runs.save_arrays(file, settings=settings, losses=np.ones((2, 3)), at_source_scale=True)
    check(file, lambda: runs.load_arrays(file))


def test_a_number_changed_by_hand_is_noticed(run):
    file = run.path / "config.json"
    file.write_text(file.read_text().replace("0.1", "0.3"))
    with pytest.raises(Damaged, match=r"config\.json is damaged \(its digest is another\)"):
        Run.read(run.path)
    file.write_text('{"written": "by hand"}')
    assert read_json(file) == {"written": "by hand"}


def test_what_a_killed_writer_left_is_cleared_away(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = this_process()
    left = here.replace(str(os.getpid()), str(ended.pid))
    names = [f".page.html.{who}.tmp" for who in (left, f"elsewhere-{ended.pid}")]
    for name in (*names, f".other.html.{left}.tmp"):
        (tmp_path / name).write_text("half a pa")
    write_text(tmp_path / "page.html", "a page")
    rest = {path.name for path in tmp_path.iterdir()}
    assert rest == {"page.html", names[1], f".other.html.{left}.tmp"}


def test_a_file_of_no_arrays_is_whole(tmp_path):
    runs.save_arrays(tmp_path / "none.npz")
    np.savez(tmp_path / "theirs.npz")
    assert (
        runs.load_arrays(tmp_path / "none.npz") == runs.load_arrays(tmp_path / "theirs.npz") == {}
    )
