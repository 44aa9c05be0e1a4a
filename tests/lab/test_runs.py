"""A run folder reads as what was written to it, whatever happened to the process that wrote it."""

import errno
import json
import math
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from coherence.lab import runs
from coherence.lab.runs import Run, record_file
from coherence.lab.runs.files import Damaged

CONFIG = {"learning_rate": 0.1, "optimizer": {"name": "winsorize", "c": 2}, "widths": (8, 8)}


@pytest.fixture
def run(tmp_path):
    with Run.open(tmp_path / "toy" / "seed=0", CONFIG, seed=0, manifest={"device": "cpu"}) as run:
        yield run


def test_a_run_remembers_its_settings_seed_and_circumstances(run):
    read = Run.read(run.path)
    assert read.config == {
        "learning_rate": 0.1,
        "optimizer": {"name": "winsorize", "c": 2},
        "widths": [8, 8],
    }
    assert (read.seed, read.manifest["device"], read.done, read.summary) == (0, "cpu", False, None)
    assert read.manifest["versions"]["numpy"] == np.__version__
    assert read.manifest == run.manifest


def test_reading_a_run_needs_neither_jax_nor_the_lock(run):
    program = (
        "import sys; from coherence.lab.runs import Run; "
        f"print(Run.read({str(run.path)!r}).seed, 'jax' in sys.modules)"
    )
    assert subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split() == ["0", "False"]


def test_the_same_settings_reopen_the_run_and_that_is_noted(run):
    run.append({"step": 0})
    run.close()
    again = Run.open(run.path, {**CONFIG, "widths": [8, 8]}, seed=0, manifest={"device": "gpu"})
    assert again.records() == [{"step": 0}]
    assert [entry["device"] for entry in again.manifest["resumed"]] == ["gpu"]
    assert again.manifest["device"] == "cpu"


@pytest.mark.parametrize(
    ("change", "seed", "said"),
    [
        (
            {"learning_rate": 0.05},
            0,
            r"seed=0 holds another run \(learning_rate: 0.1, not 0.05\)\. Give this one another "
            r"name, or delete",
        ),
        ({"optimizer": {"name": "winsorize", "c": 8}}, 0, r"\(optimizer\.c: 2, not 8\)"),
        (
            {"optimizer": {"name": "average"}},
            0,
            r'\(optimizer\.name: "winsorize", not "average"; optimizer\.c: 2, not absent\)',
        ),
        ({"momentum": 0.9}, 0, r"\(momentum: absent, not 0.9\)"),
        ({}, 1, r"\(seed: 0, not 1\)"),
    ],
)
def test_other_settings_or_another_seed_are_refused_by_name(run, change, seed, said):
    run.close()
    with pytest.raises(runs.RunMismatch, match=said):
        Run.open(run.path, {**CONFIG, **change}, seed=seed)


def test_nan_and_numpy_numbers_in_settings_are_the_same_after_a_round_trip(tmp_path):
    for _ in range(2):
        Run.open(
            tmp_path,
            {"threshold": math.nan, "rate": np.float32(0.5), "steps": np.int64(3)},
            seed=np.int64(0),
        ).close()
    assert Run.read(tmp_path).config["rate"] == 0.5


def test_settings_must_be_plain_values(tmp_path):
    with pytest.raises(
        TypeError,
        match="config must consist of numbers, text, booleans, None, lists and dicts; it contains "
        "a object",
    ):
        Run.open(tmp_path, {"optimizer": object()}, seed=0)


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(runs.RunMismatch, match=r"holds files that are no run \(thesis\.txt\)"):
        Run.open(tmp_path, CONFIG, seed=0)


def test_a_run_has_one_writer(run):
    with pytest.raises(
        runs.RunBusy,
        match=rf"is being written by process {os.getpid()} on .* since 20.* \(this one\)\. Wait",
    ):
        Run.open(run.path, CONFIG, seed=0)
    run.close()
    Run.open(run.path, CONFIG, seed=0).close()


def test_another_process_is_kept_out(run):
    program = f"from coherence.lab.runs import Run; Run.open({str(run.path)!r}, {CONFIG!r}, seed=0)"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert other.returncode == 1
    assert "RunBusy" in other.stderr
    assert f"is being written by process {os.getpid()} on {socket.gethostname()} since" in (
        other.stderr
    )
    run.append({"step": 0})
    assert run.records() == [{"step": 0}]


def test_a_forgotten_run_is_free_again(tmp_path):
    Run.open(tmp_path, CONFIG, seed=0).append({"step": 0})
    Run.open(tmp_path, CONFIG, seed=0).close()


def test_what_is_only_read_is_not_written(run):
    with pytest.raises(
        RuntimeError, match="was opened for reading, or is closed: nothing can be written to it"
    ):
        Run.read(run.path).append({"step": 0})


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        OSError, match=r"cannot write to .*file.run \(Not a directory\).*COHERENCE_RUNS"
    ):
        Run.open(tmp_path / "file" / "run", CONFIG, seed=0)


@pytest.mark.skipif(
    not hasattr(os, "getuid") or os.getuid() == 0, reason="the superuser may write everywhere"
)
def test_a_folder_without_permission_is_a_clear_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match=r"cannot write to .*Permission denied.*COHERENCE_RUNS"):
        Run.open(tmp_path / "run", CONFIG, seed=0)


def test_what_is_no_run_is_said_to_be_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no run folder"):
        Run.read(tmp_path)


def test_a_run_of_another_format_is_not_misread(run):
    (run.path / "manifest.json").write_text(json.dumps({**run.manifest, "format": 99}))
    with pytest.raises(ValueError, match="was written in format 99; this version reads 1"):
        Run.read(run.path)


def test_damaged_settings_are_a_clear_error(run):
    (run.path / "config.json").write_text('{"learning')
    with pytest.raises(
        ValueError, match=r"config\.json is damaged .* Delete the run's folder and run again"
    ):
        Run.read(run.path)


# Metrics


def test_records_come_back_in_order_with_nan_and_infinity(run):
    run.append({"step": 0, "loss": np.float32(2.5), "coherence": math.nan})
    run.append({"step": np.int64(1), "loss": math.inf, "by": {"output": np.arange(2)}})
    first, second = run.records()
    assert first["loss"] == 2.5
    assert math.isnan(first["coherence"])
    assert second == {"step": 1, "loss": math.inf, "by": {"output": [0, 1]}}


@pytest.mark.parametrize("torn", ['{"step": 2, "lo', '{"step": 2}', "{"])
def test_a_torn_last_line_is_dropped_and_not_written_onto(run, torn):
    run.append({"step": 1})
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write(torn)
    run.close()
    with Run.open(run.path, CONFIG, seed=0) as again:
        assert again.records() == [{"step": 1}]
        again.append({"step": 3})
        assert again.records() == [{"step": 1}, {"step": 3}]


def test_a_torn_first_line_leaves_no_record(run):
    (run.path / "metrics.jsonl").write_text('{"step"')
    assert run.records() == []
    run.append({"step": 0})
    assert run.records() == [{"step": 0}]


@pytest.mark.parametrize("line", ['{"step"', "3", '{"loss": 1}', "\0\0\0", ""])
def test_a_damaged_line_in_the_middle_is_no_torn_one(run, line):
    (run.path / "metrics.jsonl").write_text('{"step": 0}\n' + line + '\n{"step": 1}\n')
    for read in (run.records, lambda: run.truncate(0)):
        with pytest.raises(
            ValueError,
            match=r"metrics\.jsonl is damaged in line 2 \(b'.*'\)\. Delete the run's folder and "
            r"run again",
        ):
            read()


@pytest.mark.parametrize(
    "lines",
    [
        ['{"step": 0}', '{"step": 1},{"step": 2}'],
        ['{"step": 0}, {"step": 1}', "{}"],
        ['{"step": 0, "a": {"b": 1', '"c": 2}}'],
        ['[{"step": 0}', '{"step": 1}]'],
        ['{"step": 0}', '{"step": true, "loss": 1]'],
    ],
)
def test_lines_that_are_records_only_together_are_damaged(run, lines):
    (run.path / "metrics.jsonl").write_text("\n".join([*lines, ""]))
    with pytest.raises(Damaged, match=r"metrics\.jsonl is damaged in line [12]"):
        run.records()


def test_a_record_needs_its_step(run):
    with pytest.raises(
        ValueError,
        match=r"append\(record\): a record needs its integer step, .* got keys \['loss'\]",
    ):
        run.append({"loss": 1.0})


def test_truncating_forgets_later_records_and_later_checkpoints(run):
    for step in range(5):
        run.append({"step": step, "loss": math.nan})
        run.checkpoint(step, {"w": np.full(2, step)})
    run.truncate(3)
    assert [record["step"] for record in run.records()] == [0, 1, 2, 3]
    assert list(run.checkpoints()) == [3]
    run.append({"step": 4})
    assert [record["step"] for record in Run.read(run.path).records()] == [0, 1, 2, 3, 4]
    run.truncate(-1)
    assert (run.records(), run.checkpoints()) == ([], {})


# Arrays


def test_arrays_come_back_bit_by_bit(run):
    arrays = {
        "weights": np.random.default_rng(0).normal(size=(3, 4)).T,
        "layer/0/scalar": np.float16(2),
        "name": np.array("text"),
        "empty": np.zeros((0, 2)),
    }
    run.save("probe", **arrays)
    loaded = Run.read(run.path).load("probe")
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        assert loaded[name].dtype == np.asarray(array).dtype
        np.testing.assert_array_equal(loaded[name], array)


def test_the_same_arrays_are_the_same_bytes(tmp_path):
    runs.save_arrays(tmp_path / "one.npz", a=np.arange(3), b=np.eye(2))
    runs.save_arrays(tmp_path / "other.npz", b=np.asfortranarray(np.eye(2)), a=np.arange(3))
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "other.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.npz") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_types_that_npz_would_change_are_refused(tmp_path):
    import ml_dtypes

    with pytest.raises(
        TypeError,
        match=r"array w has type bfloat16, which \.npz cannot hold.*astype\(numpy.float32\)",
    ):
        runs.save_arrays(tmp_path / "a.npz", w=np.zeros(2, ml_dtypes.bfloat16))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[: len(b) // 2],
        lambda b: b[:-100],
        lambda b: b"",
        lambda b: b[:200] + b"?" + b[201:],
    ],
)
def test_truncated_and_corrupt_arrays_name_the_file(run, damage):
    run.save("probe", w=np.arange(100.0))
    file = run.path / "probe.npz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=r"probe\.npz is truncated or corrupt"):
        run.load("probe")


def test_missing_arrays_say_which_there_are(run):
    run.save("probe", w=np.zeros(1))
    with pytest.raises(FileNotFoundError, match="has no arrays 'weights'; it has probe"):
        run.load("weights")


@pytest.mark.parametrize("name", ["../outside", ".hidden", "checkpoint-3", ""])
def test_names_of_arrays_stay_in_the_folder(run, name):
    with pytest.raises(ValueError, match="a name of arrays is made of letters, digits"):
        run.save(name, w=np.zeros(1))


def test_a_checkpoint_keeps_the_one_before(run):
    for step in (10, 20, 30):
        run.checkpoint(step, {"w": np.full(2, step)})
    assert list(run.checkpoints()) == [30, 20]
    np.testing.assert_array_equal(run.restore(20)["w"], [20, 20])
    with pytest.raises(FileNotFoundError, match=r"has no checkpoint of step 10; it has \[20, 30\]"):
        run.restore(10)


def test_a_damaged_newest_checkpoint_is_skipped(run):
    for step in (10, 20):
        run.checkpoint(step, {"w": np.arange(100)})
    newest = run.path / "checkpoint-20.npz"
    newest.write_bytes(newest.read_bytes()[:-50])
    assert list(run.checkpoints()) == [10]


# The end, and kills


def test_a_finished_run_is_whole_and_only_read(run):
    run.append({"step": 0})
    run.finish({"accuracy": np.float32(0.5)})
    again = Run.open(run.path, CONFIG, seed=0)
    assert again.done
    assert again.summary == {"accuracy": 0.5}
    assert "resumed" not in again.manifest
    for write in (
        lambda: again.append({"step": 1}),
        lambda: again.truncate(0),
        lambda: again.checkpoint(0, {}),
        again.finish,
    ):
        with pytest.raises(RuntimeError, match="is finished: nothing can be written to it"):
            write()


def test_runs_are_found_below_a_folder(tmp_path):
    for seed in range(3):
        with Run.open(tmp_path / f"seed={seed}", CONFIG, seed=seed) as run:
            if seed == 1:
                run.finish()
    (tmp_path / "notes").mkdir()
    assert [run.seed for run in runs.find(tmp_path)] == [0, 1, 2]
    assert [run.seed for run in runs.find(tmp_path, done=True)] == [1]
    assert [run.seed for run in runs.find(tmp_path, done=False)] == [0, 2]
    assert runs.find(tmp_path / "nowhere") == []


def test_runs_go_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.delenv("COHERENCE_RUNS", raising=False)
    assert str(runs.root()) == "runs"
    monkeypatch.setenv("COHERENCE_RUNS", str(tmp_path))
    assert runs.root() == tmp_path


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("write", "synced", "file"),
    [
        (lambda run: run.checkpoint(2, {"w": np.zeros(3)}), 0, "metrics.jsonl"),
        (lambda run: run.checkpoint(2, {"w": np.zeros(3)}), 1, "checkpoint-2.npz"),
        (lambda run: run.save("params", w=np.zeros(3)), 0, "params.npz"),
        (lambda run: run.annotate(device="a chip"), 0, "manifest.json"),
        (lambda run: run.truncate(1), 0, "metrics.jsonl"),
        (lambda run: run.finish(), 0, "metrics.jsonl"),
        (lambda run: run.finish(), 1, "DONE"),
    ],
)
def test_a_full_disk_is_said_and_takes_nothing_that_was_there(
    run, monkeypatch, write, synced, file
):
    """`synced` files still fit."""
    calls = []

    def full(_):
        calls.append(1)
        if len(calls) > synced:
            raise FULL

    run.append({"step": 0})
    run.append({"step": 1})
    run.checkpoint(1, {"w": np.ones(3)})
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        said = (
            rf"cannot write .*{file} \(No space left on device\)\. "
            r"Nothing that was there is lost\. .* goes on from its last checkpoint"
        )
        with pytest.raises(OSError, match=said) as raised:
            write(run)
    assert raised.value.errno == errno.ENOSPC
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before
    write(run)  # there is room again


def test_a_record_that_did_not_fit_is_cut_off_before_the_next(run, monkeypatch):
    run.append({"step": 0})
    write = os.write

    def half(descriptor, line):
        if len(line) < 20:
            raise FULL
        return write(descriptor, line[:20])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", half)
        with pytest.raises(
            OSError, match=r"cannot write .*metrics\.jsonl \(No space left on device\)"
        ):
            run.append({"step": 1, "loss": 0.5})
    assert (run.path / "metrics.jsonl").read_bytes() == b'{"step": 0}\n{"step": 1, "loss": '
    assert run.records() == [{"step": 0}]
    run.append({"step": 1, "loss": 0.25})
    assert run.records() == [{"step": 0}, {"step": 1, "loss": 0.25}]


def test_a_line_is_written_to_its_end_where_the_system_takes_it_piece_by_piece(run, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, line: write(descriptor, line[:3]))
    run.append({"step": 0, "loss": 0.5})
    assert run.records() == [{"step": 0, "loss": 0.5}]


@pytest.mark.parametrize("before", [1, 3000])
def test_recording_takes_one_write_of_one_line_however_many_there_are(run, monkeypatch, before):
    record = {"step": 1, **{f"quantity {i}": np.float32(i / 7) for i in range(40)}}
    for _ in range(before):
        run.append(record)
    write, written = os.write, []

    def counted(descriptor, line):
        written.append(bytes(line))
        return write(descriptor, line)

    def refused(*arguments, **options):
        raise AssertionError(f"recording calls {arguments}")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", counted)
        for name in ("open", "fsync", "fdatasync", "replace", "rename"):
            patch.setattr(os, name, refused, raising=False)
        patch.setattr("builtins.open", refused)
        run.append(record)
    assert len(written) == 1
    assert written[0].count(b"\n") == 1
    assert len(written[0]) < 40 * 40
    assert len(run.records()) == before + 1


WRITER = """
import sys
import numpy as np
from coherence.lab.runs import Run

run = Run.open(sys.argv[1], {"rate": 0.1}, seed=0)
start = max(run.checkpoints(), default=0)
run.truncate(start)
print(start, flush=True)
for step in range(start + 1, 1_000_000):
    run.append({"step": step, "padding": "x" * 500})
    run.save("latest", step=np.full(20_000, step))
    run.checkpoint(step, {"w": np.full(20_000, step)})
"""


def test_a_run_killed_at_any_moment_reads_whole_and_goes_on(tmp_path):
    folder = tmp_path / "run"
    reached = 0
    for moment in (0.0, 0.003, 0.011, 0.027, 0.05):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), str(folder)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert int(process.stdout.readline()) >= reached
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.communicate()

        run = Run.read(folder)
        assert not run.done
        checkpoints = run.checkpoints()
        records = [record["step"] for record in run.records()]
        newest = max(checkpoints, default=0)
        assert newest >= reached
        assert records == list(range(1, len(records) + 1))
        assert len(records) >= newest
        for step in checkpoints:
            assert (run.restore(step)["w"] == step).all()
        if (folder / "latest.npz").exists():
            assert np.unique(run.load("latest")["step"]).size == 1
        reached = newest
    assert reached > 0
    with Run.open(folder, {"rate": 0.1}, seed=0):
        assert not list(folder.glob(".*.tmp"))


def test_facts_are_added_to_the_manifest(tmp_path):
    with Run.open(tmp_path / "run", {"steps": 1}, seed=0) as run:
        run.annotate(device="a chip")
    assert Run.read(tmp_path / "run").manifest["device"] == "a chip"
    assert Run.open(tmp_path / "run", {"steps": 1}, seed=0).config == {"steps": 1}


def same(a, b):
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype and np.array_equal(a[name], b[name]) for name in a
    )


def test_no_cut_and_no_flipped_bit_of_arrays_is_read_as_other_numbers(tmp_path):
    """10,000 damaged files are refused, or read as they were (a bit that means nothing)."""
    arrays = {"w": np.arange(12.0, dtype=np.float32).reshape(3, 4), "n": np.array(3)}
    file = tmp_path / "arrays.npz"
    runs.save_arrays(file, **arrays)
    whole, rng, refused = file.read_bytes(), np.random.default_rng(0), 0
    for number in range(10_000):
        if number < len(whole):
            damaged = whole[:number]
        else:
            damaged = bytearray(whole)
            damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        file.write_bytes(damaged)
        try:
            assert same(runs.load_arrays(file), arrays), f"case {number}"
        except Damaged:
            refused += 1
    assert refused > 7_000


def test_a_finished_run_whose_records_were_cut_is_not_read_as_whole(run):
    for step in range(3):
        run.append({"step": step, "loss": 1.0})
    run.finish()
    file = run.path / "metrics.jsonl"
    whole = file.read_bytes()
    assert len(Run.read(run.path).records()) == 3
    for end in range(len(whole)):
        file.write_bytes(whole[:end])
        with pytest.raises(Damaged, match=r"records of 3, or others\. Delete the run's folder"):
            Run.read(run.path).records()
    file.write_bytes(whole.replace(b"1.0", b"2.0", 1))
    with pytest.raises(Damaged, match="it has 3 records of 3, or others"):
        Run.open(run.path, run.config, seed=run.seed)


def test_a_checkpoint_whose_records_are_lost_is_none_to_go_on_from(run):
    run.append({"step": 0, "loss": 3.0})
    run.checkpoint(0, {"w": np.ones(3)})
    run.append({"step": 5, "loss": 2.0})
    run.checkpoint(5, {"w": np.ones(3)})
    run.append({"step": 6, "loss": 1.0})
    assert list(run.checkpoints()) == [5, 0]
    file = run.path / "metrics.jsonl"
    whole = file.read_bytes()
    run.truncate(5)
    assert file.read_bytes() == b"".join(whole.splitlines(True)[:2])
    assert list(run.checkpoints()) == [5, 0]
    for end in range(len(whole.splitlines(True)[0]), len(file.read_bytes())):
        file.write_bytes(whole[:end])
        assert list(run.checkpoints()) == [0]
    file.write_bytes(whole.replace(b"3.0", b"4.0"))
    assert not run.checkpoints()


def test_checkpoints_of_other_runs_and_steps_are_none_of_this_run(tmp_path):
    opened = {
        name: Run.open(tmp_path / name, {"rate": rate}, seed=seed)
        for name, rate, seed in (("a", 0.1, 0), ("b", 0.1, 1), ("c", 0.2, 0))
    }
    for made in opened.values():
        made.checkpoint(3, {"w": np.ones(3)})
    ours = tmp_path / "a" / "checkpoint-3.npz"
    whole = ours.read_bytes()
    for other in ("b", "c"):
        ours.write_bytes((tmp_path / other / "checkpoint-3.npz").read_bytes())
        assert not opened["a"].checkpoints()
    ours.unlink()
    (tmp_path / "a" / "checkpoint-4.npz").write_bytes(whole)
    assert not opened["a"].checkpoints()
    ours.write_bytes(whole)
    assert list(opened["a"].checkpoints()) == [3]


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES])
def test_a_passing_error_of_the_disk_is_no_damage(run, monkeypatch, code):
    run.append({"step": 9})
    run.checkpoint(9, {"w": np.ones(3)})
    before = sorted(path.name for path in run.path.iterdir())
    with monkeypatch.context() as patched:

        def fail(path):
            raise OSError(code, os.strerror(code))

        patched.setattr(Path, "read_bytes", fail)
        with pytest.raises(OSError, match=r"cannot read .*checkpoint-9\.npz .* try again") as error:
            run.checkpoints()
        assert error.value.errno == code
    assert sorted(path.name for path in run.path.iterdir()) == before
    assert list(run.checkpoints()) == [9]


def test_a_run_stays_in_its_folder_when_the_working_directory_changes(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with Run.open("mine", {}, seed=0) as made:
        monkeypatch.chdir(tmp_path / "elsewhere")
        made.append({"step": 0})
        made.finish()
    assert Run.read(tmp_path / "mine").done
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("steps", [5_000, 20_000])
def test_checkpoints_read_no_record_again(tmp_path, monkeypatch, steps):
    read = []
    monkeypatch.setattr(
        record_file, "read_bytes", lambda path: read.append(path) or path.read_bytes()
    )
    with Run.open(tmp_path, {}, seed=0) as run:
        for step in range(steps):
            run.append({"step": step, "loss": 1.0})
            if step % 500 == 0:
                run.checkpoint(step, {"w": np.zeros(1)})
        assert len(read) <= 1
        run.truncate(steps // 2)
        run.append({"step": steps})
        run.checkpoint(steps, {"w": np.zeros(1)})
        run.finish()
    again = Run.read(tmp_path)
    assert len(again.records()) == steps // 2 + 2  # whose digest is that of the file
    assert steps in again.checkpoints()
