"""`coherence audit` reads back a run, or says what is in the way."""

import csv
import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coherence.lab.experiment import Experiment
from coherence.lab.grid import Grid, Unit
from coherence.lab.running import show_audit
from coherence.lab.running.auditing import audit_run
from coherence.lab.runs import Run, save_arrays
from coherence.lab.settings import MLP, digits, label_noise, plain, sgd
from coherence.lab.training import Classification, train
from coherence.lab.training.trained import classifier
from coherence.scores import margin


@dataclasses.dataclass(frozen=True)
class Settings:
    seeds: int = 2
    rate: float = 0.1


@dataclasses.dataclass(frozen=True)
class Computed:
    def compute(self, seed):
        return {"accuracy": np.float64(seed)}


def arms(settings):
    network = Classification(
        data=digits(examples=40),
        noise=label_noise(0.5),
        model=MLP(4),
        optimizer=sgd(settings.rate),
        steps=2,
        batch_size=20,
        probes=(),
        track_batches=False,
    )
    return {"network": network, "computed": Computed()}


EXPERIMENT = Experiment("tiny", (), {"cpu": Settings()}, arms, None, None, None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    grid = Grid(arms(Settings()), 1, folder / "tiny" / "cpu")
    for arm in grid.arms:
        grid.train(Unit(arm, (0,)), lambda steps: None, lambda line: None)
    return folder


@pytest.fixture(autouse=True)
def here(trained, monkeypatch, tmp_path):
    monkeypatch.setenv("COHERENCE_RUNS", str(trained))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_finished_run_is_audited_as_it_was_trained(here, trained, capsys):
    show_audit(EXPERIMENT, ["--arm", "network", "--output", "mine.html"])
    assert "40 examples by margin" in capsys.readouterr().out
    assert (here / "mine.html").read_text().count("data:image/png") >= 40
    with np.load(trained / "tiny" / "cpu" / "network" / "seed=0" / "drawn.npz") as drawn:
        labels = drawn["labels"]
    with open(here / "mine.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(int(row["label"]) == labels[int(row["example"])] for row in rows)


@pytest.fixture
def unfinished(trained):
    """A run killed on its way to step 4, with checkpoints of steps 2 and 3."""
    settings = dataclasses.replace(arms(Settings())["network"], steps=4)
    done = []

    def killed(steps):
        done.append(steps)
        if sum(done) == 4:
            raise KeyboardInterrupt

    path = trained / "unfinished"
    with pytest.raises(KeyboardInterrupt), Run.open(path, plain(settings), seed=0) as run:
        train(
            [settings.build(0)],
            [run],
            steps=4,
            batch_size=20,
            schedule=(1, 2, 3),
            checkpoint_seconds=0,
            progress=killed,
        )
    yield settings, path
    shutil.rmtree(path)


def test_an_unfinished_run_is_audited_at_its_checkpoints_and_says_so(here, unfinished):
    settings, path = unfinished
    text = audit_run(settings, Run.read(path), "train", None, here / "a.html")
    first, second, *_ = text.splitlines()
    assert first.endswith("train, not finished: its parameters at step 2 and step 3")
    assert second.startswith("40 examples by aum")
    left = classifier(settings, Run.read(path))
    x, y = (jnp.asarray(part) for part in left.data["train"])
    margins = [margin(jax.vmap(left.logits, (None, 0))(p, x), y) for p in left.params.values()]
    assert not np.allclose(*margins)
    with open(here / "a.csv", newline="") as file:
        rows = {int(row["example"]): float(row["aum"]) for row in csv.DictReader(file)}
    expected = np.mean(margins, 0)
    np.testing.assert_allclose([rows[i] for i in range(40)], expected, rtol=1e-4, atol=1e-5)


def test_a_run_without_a_checkpoint_says_how_to_go_on(unfinished):
    settings, path = unfinished
    for file in path.glob("checkpoint-*.npz"):
        file.unlink()
    with pytest.raises(ValueError, match="not finished and has no checkpoint; `coherence run`"):
        classifier(settings, Run.read(path))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--arm: one of network, computed"),
        (["--arm", "netwrk"], "got 'netwrk'. Did you mean network"),
        (["--arm", "computed"], "Computed have no labels"),
        (["--arm", "network", "--seed", "2"], "--seed: from 0 to 1, got 2"),
        (["--arm", "network", "--seed", "1"], "there is no run .*seed=1.*coherence run tiny"),
        (["--arm", "network", "--rate", "0.2"], "there is no run"),
        (["--arm", "network", "--output", "no/a.html"], "there is no folder no for a.html"),
        (["--arm", "network", "--output", "a.csv"], "--output: the page's name, .* got a.csv"),
    ],
)
def test_what_is_in_the_way_is_named(words, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        show_audit(EXPERIMENT, words)


def test_other_settings_and_other_labels_are_refused(trained):
    place = trained / "tiny" / "cpu" / "network" / "seed=0"
    other = dataclasses.replace(
        EXPERIMENT, arms=lambda s: arms(dataclasses.replace(s, rate=s.rate + 1))
    )
    with pytest.raises(ValueError, match=r"holds another run \(optimizer"):
        show_audit(other, ["--arm", "network"])
    with np.load(place / "drawn.npz") as drawn:
        before = dict(drawn)
    save_arrays(place / "drawn.npz", **{**before, "labels": before["labels"][::-1]})
    try:
        with pytest.raises(ValueError, match="was trained on other labels"):
            show_audit(EXPERIMENT, ["--arm", "network"])
    finally:
        save_arrays(place / "drawn.npz", **before)
