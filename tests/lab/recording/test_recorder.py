"""The recorder of a loop of one's own: what is on disk, what is looked at, and who gets copies."""

import os
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coherence import probes
from coherence.lab.recording import MLflow, Recorder, TensorBoard, Trackio, WandB, recorder
from coherence.lab.report import describe
from coherence.lab.runs import Run
from coherence.probes.histograms import BINS, SAMPLE, histogram


class Copy:
    """A sink that keeps what it gets."""

    def __init__(self, fails_at=None):
        self.seen, self.fails_at = [], fails_at

    def begin(self, run):
        self.seen.append(("begin", run.seed, run.config))

    def write(self, step, numbers):
        if step == self.fails_at:
            raise ConnectionError("no network")
        self.seen.append((step, dict(numbers)))

    def end(self, done):
        self.seen.append(("end", done))


def params(step):
    return {"dense": {"kernel": jnp.full((2, 2), float(step)), "bias": jnp.zeros(3)}}


def test_a_loop_is_recorded_as_a_run(tmp_path):
    with Recorder(tmp_path, {"rate": 0.1}, seed=3, look_every=2) as mine:
        for step in range(5):
            mine.record(step, {"train_loss": jnp.float32(0.5)}, params=params(step))
    run = Run.read(tmp_path)
    assert (run.done, run.seed, run.config) == (True, 3, {"rate": 0.1})
    records = run.records()
    assert [record["step"] for record in records] == list(range(5))
    assert all(record["train_loss"] == 0.5 for record in records)
    # four numbers of the kernel move by 1 a step
    assert [record.get("distance_from_start") for record in records] == [0, None, 4, None, 8]
    assert [record.get("update_size") for record in records] == [None, 2, None, 2, None]
    assert records[4]["parameter_histogram_limit"] == {"dense": 4}
    assert sum(records[4]["parameter_histogram_counts"]["dense"]) == 7
    assert "done, 5 records" in describe(tmp_path)


def test_gradients_are_looked_at_too(tmp_path):
    gradients = {"dense": jnp.array([3.0, 4.0])}
    with Recorder(tmp_path) as mine:
        mine.record(7, gradients=gradients)
        mine.record(8, {"loss": 1.0}, gradients=gradients)
    first, second = Run.read(tmp_path).records()
    assert first["gradient_norm"] == 5
    assert first["gradient_histogram_limit"] == {"dense": 4}
    assert set(second) == {"step", "loss"}


def test_parameters_may_be_donated(tmp_path):
    step = jax.jit(lambda p: jax.tree.map(lambda x: x + 1.0, p), donate_argnums=0)
    p = params(0)
    with Recorder(tmp_path, look_every=1) as mine:
        for i in range(3):
            mine.record(i, params=p)
            p = step(p)
    updates = [record.get("update_size") for record in Run.read(tmp_path).records()]
    assert updates == [None, pytest.approx(7**0.5), pytest.approx(7**0.5)]


def test_records_wait_for_their_numbers_but_not_for_ever(tmp_path):
    class Number:
        ready = False

        def is_ready(self):
            return self.ready

        def tolist(self):
            return 0.5

    slow, steps = Number(), lambda: [record["step"] for record in Run.read(tmp_path).records()]
    with Recorder(tmp_path) as mine:
        mine.record(0, {"loss": 1.0})
        mine.record(1, {"by_layer": {"a": slow}})
        mine.record(2, {"loss": 1.0})
        assert steps() == [0]
        slow.ready = True
        mine.record(3)
        assert steps() == [0, 1, 2, 3]
        slow.ready = False
        for step in range(4, 4 + recorder.MOST_WAITING + 2):
            mine.record(step, {"loss": [slow]})
        assert steps() == [0, 1, 2, 3, 4, 5]
    assert steps() == list(range(4 + recorder.MOST_WAITING + 2))


class Never:
    """A number that is not ready, and perhaps never will be."""

    def __init__(self, fails=False):
        self.fails = fails

    def is_ready(self):
        return False

    def tolist(self):
        if self.fails:
            raise FloatingPointError("no such number")
        return 0.5


def test_what_waits_is_as_it_was_when_it_was_recorded(tmp_path):
    counts, rows = np.zeros(2), [0]
    with Recorder(tmp_path) as mine:
        for step in range(3):
            mine.record(step, {"loss": Never(), "counts": counts, "by_layer": {"a": rows}})
            counts += 1
            rows[0] += 1
    records = Run.read(tmp_path).records()
    assert [record["counts"] for record in records] == [[0, 0], [1, 1], [2, 2]]
    assert [record["by_layer"]["a"] for record in records] == [[0], [1], [2]]


def test_records_that_miss_every_multiple_are_looked_at(tmp_path):
    with Recorder(tmp_path, look_every=100) as mine:
        for step in (49, 99, 149, 199, 249):
            mine.record(step, params=params(step))
    looked = [r["step"] for r in Run.read(tmp_path).records() if "distance_from_start" in r]
    assert looked == [49, 149, 249]


def test_a_number_that_cannot_be_computed_hides_neither_the_error_nor_other_records(tmp_path):
    def loop(mine):
        with mine:
            for step in range(3):
                mine.record(step, {"loss": Never(fails=step == 1)})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        loop(Recorder(tmp_path))
    assert "ZeroDivisionError" in (tmp_path / "error.log").read_text()
    assert [record["step"] for record in Run.read(tmp_path).records()] == [0, 2]
    Recorder(tmp_path, start=3).close()  # no lock is left


def test_speed_and_memory_come_about_once_a_second(tmp_path, monkeypatch):
    now = iter(np.arange(100) * 0.25)
    clock = types.SimpleNamespace(monotonic=lambda: next(now))
    monkeypatch.setattr(recorder, "time", clock)
    with Recorder(tmp_path) as mine:
        for step in range(0, 90, 10):
            mine.record(step, {"loss": 1.0})
    records = Run.read(tmp_path).records()
    rates = {r["step"]: r["system/steps_per_second"] for r in records if len(r) > 2}
    assert rates == {30: 30.0, 70: 40.0}
    if sys.platform == "linux":
        assert 1 < records[3]["system/memory_mb"] < 1e5


def test_a_probe_writes_to_it(tmp_path):
    loss = lambda w, x: jnp.dot(w, x)
    probe = probes.Probe(loss, jnp.eye(4), quantities=["light", "histograms"])
    copy = Copy()
    with Recorder(tmp_path, also=[copy]) as mine:
        mine.record(0, {"loss": 2.0})
        probe.record(mine, 1, jnp.ones(4))
    first, second = Run.read(tmp_path).records()
    assert first == {"step": 0, "loss": 2.0}
    assert second["train/m_coherence"] == pytest.approx(1)
    assert Run.read(tmp_path).axes["train/gradient_histogram_counts"] == ["layer", "bin"]
    assert second["train/parameter_histogram_counts"]["all"][-1] == 4
    assert second["train/gradient_histogram_limit"] == {"all": 0.25}
    assert copy.seen[2][1]["train/gradient_histogram_limit/all"] == 0.25
    assert (tmp_path / "examples-train.npz").exists()


def test_an_error_leaves_a_run_that_can_be_gone_on_with(tmp_path):
    copy = Copy()

    def loop(mine):
        with mine:
            for step in range(4):
                mine.record(step, {"loss": 1 / (3 - step)})

    with pytest.raises(ZeroDivisionError):
        loop(Recorder(tmp_path, {"a": 1}, also=[copy]))
    assert copy.seen[-1] == ("end", False)
    assert "ZeroDivisionError" in (tmp_path / "error.log").read_text()
    assert [record["step"] for record in Run.read(tmp_path).records()] == [0, 1, 2]
    with Recorder(tmp_path, {"a": 1}, start=2) as mine:  # from a checkpoint of two steps
        for step in range(2, 4):
            mine.record(step, {"loss": 9.0})
    losses = [record["loss"] for record in Run.read(tmp_path).records()]
    assert losses == [1 / 3, 1 / 2, 9, 9]
    with pytest.raises(RuntimeError, match="is finished: give this one another folder"):
        Recorder(tmp_path, {"a": 1})


def test_copies_are_what_is_on_disk_as_flat_numbers(tmp_path):
    copy = Copy()
    with Recorder(tmp_path, {"rate": 0.1}, seed=2, also=[copy]) as mine:
        mine.record(
            0, {"loss": 1.0, "by": {"a": 2.0}, "each": [0.0] * 100, "pair": [1, 2], "n": "x"}
        )
        mine.record(1, {"loss": float("nan")})
    begin, first, second, end = copy.seen
    assert begin == ("begin", 2, {"rate": 0.1})
    assert first == (0, {"loss": 1.0, "by/a": 2.0, "pair/0": 1.0, "pair/1": 2.0})
    assert np.isnan(second[1]["loss"])
    assert end == ("end", True)


def test_a_program_that_fails_gets_no_more_and_the_run_goes_on(tmp_path):
    bad, good = Copy(fails_at=1), Copy()

    def loop(mine):
        with mine:
            for step in range(4):
                mine.record(step, {"loss": 1.0})

    words = r"Copy gets no more of .* \(ConnectionError: no network\); the run itself goes on"
    with pytest.warns(UserWarning, match=words):
        loop(Recorder(tmp_path, also=[bad, good]))
    assert [entry[0] for entry in bad.seen] == ["begin", 0]
    assert [entry[0] for entry in good.seen] == ["begin", 0, 1, 2, 3, "end"]
    assert len(Run.read(tmp_path).records()) == 4


@pytest.mark.parametrize(
    ("sink", "package"),
    [
        (WandB(), "wandb"),
        (Trackio(), "trackio"),
        (MLflow(), "mlflow"),
        (TensorBoard("x"), "tensorb"),
    ],
)
def test_a_package_that_is_not_there_is_named(tmp_path, monkeypatch, sink, package):
    for name in ("wandb", "trackio", "mlflow", "tensorboardX"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RuntimeError, match=rf"{package}.* is not installed: pip install {package}"):
        Recorder(tmp_path, also=[sink])
    Run.open(tmp_path, {}, seed=0).close()  # the lock was given back


class Calls:
    """Stands for a module: every call of it, and of what it returned, is noted."""

    def __init__(self, notes=None, name=""):
        self.notes, self.name = [] if notes is None else notes, name

    def __getattr__(self, name):
        return Calls(self.notes, f"{self.name}.{name}".strip("."))

    def __call__(self, *args, **kwargs):
        self.notes.append((self.name, args, kwargs))
        return self


@pytest.mark.parametrize(("module", "sink"), [("wandb", WandB), ("trackio", Trackio)])
def test_wandb_and_trackio_get_settings_numbers_and_the_end(tmp_path, monkeypatch, module, sink):
    calls = Calls()
    monkeypatch.setitem(sys.modules, module, calls)
    with Recorder(tmp_path / "arm" / "seed=1", {"a": {"b": 2}}, seed=1, also=[sink("p")]) as mine:
        mine.record(5, {"loss": 1.5})
    (begin, _, options), (log, (numbers,), at), (end, _, _) = calls.notes
    assert (begin, log.split(".")[-1], end.split(".")[-1]) == ("init", "log", "finish")
    assert options["project"] == "p"
    assert options["name"] == "arm/seed=1"
    assert options["config"] == {"a.b": "2", "seed": 1}
    assert (numbers, at) == ({"loss": 1.5}, {"step": 5})


def test_mlflow_gets_the_same(tmp_path, monkeypatch):
    calls, metrics = Calls(), []
    entities = types.SimpleNamespace(Metric=lambda *values: metrics.append(values))
    fake = types.SimpleNamespace(MlflowClient=calls.MlflowClient, entities=entities)
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    with Recorder(tmp_path / "seed=1", {"a": 2}, seed=1, also=[MLflow("e", "sqlite://")]) as mine:
        mine.record(5, {"loss": 1.5, "bad": float("nan")})
    called = [(name.split(".")[-1], args[-2:]) for name, args, _ in calls.notes]
    assert ("MlflowClient", ("sqlite://",)) in called
    assert ("log_param", ("a", "2")) in called
    assert called[-1][0] == "set_terminated"
    assert called[-1][1][-1] == "FINISHED"
    assert [(name, value, step) for name, value, _, step in metrics] == [("loss", 1.5, 5)]


def test_tensorboard_gets_event_files(tmp_path):
    pytest.importorskip("tensorboardX")
    with Recorder(tmp_path / "arm" / "seed=0", also=[TensorBoard(tmp_path / "events")]) as mine:
        mine.record(0, {"loss": 1.5})
    [events] = (tmp_path / "events" / "arm" / "seed=0").glob("events.*")
    assert b"loss" in events.read_bytes()


def test_wandb_itself_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    with Recorder(tmp_path / "seed=0", also=[WandB("test", dir=str(tmp_path))]) as mine:
        mine.record(0, {"loss": 1.5})
    assert any("offline-run" in name for _, names, _ in os.walk(tmp_path) for name in names)


def test_mlflow_itself(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with Recorder(tmp_path / "seed=0", {"a": 2}, also=[MLflow("test", uri)]) as mine:
        mine.record(0, {"train/loss": 1.5})
    client = mlflow.MlflowClient(uri)
    [run] = client.search_runs([client.get_experiment_by_name("test").experiment_id])
    assert (run.data.metrics, run.data.params["a"]) == ({"train/loss": 1.5}, "2")


def test_trackio_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    with Recorder(tmp_path / "seed=0", also=[Trackio("test")]) as mine:
        mine.record(0, {"loss": 1.5})
    assert any((tmp_path / "trackio").glob("test*"))


def test_histograms_count_as_numpy_does():
    rng = np.random.default_rng(0)
    tree = {"a": {"w": rng.normal(size=(40, 9)).astype("f"), "b": rng.normal(size=7).astype("f")}}
    counts, limit = histogram(tree)
    numbers = np.concatenate([tree["a"]["w"].ravel(), tree["a"]["b"]])
    largest = np.abs(numbers).max()
    assert float(limit["a"]) == largest
    expected, _ = np.histogram(numbers, np.linspace(-largest, largest, BINS + 1))
    assert np.abs(np.asarray(counts["a"]) - expected).sum() <= 2  # rounding at an edge
    assert float(counts["a"].sum()) == len(numbers)


def test_of_a_large_leaf_a_sample_counts_for_all():
    leaf = np.random.default_rng(0).normal(size=(64, 1000)).astype("f")
    counts, limit = histogram({"w": leaf})
    assert float(counts["w"].sum()) == pytest.approx(leaf.size)
    expected, _ = np.histogram(leaf, np.linspace(-float(limit["w"]), float(limit["w"]), BINS + 1))
    assert (
        np.abs(np.asarray(counts["w"]) - expected).max()
        < 6 * (SAMPLE * 0.2) ** 0.5 * 64000 / SAMPLE
    )


def test_what_is_no_number_is_in_no_bin():
    counts, limit = histogram({"w": jnp.array([jnp.nan, jnp.inf, 1.0]), "zero": jnp.zeros(2)})
    assert float(limit["w"]) == 1
    assert float(counts["w"].sum()) == 1
    assert float(limit["zero"]) == 0
    assert float(counts["zero"][BINS // 2]) == 2
