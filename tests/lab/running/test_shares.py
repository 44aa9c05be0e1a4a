"""Shares: disjoint, together the grid; trained one by one they end as the whole does."""

import dataclasses
import itertools
import json
import re
from pathlib import Path

import pytest

from benchmarks import kill
from coherence.lab import cli
from coherence.lab.experiment import check_begun, collect, load, prepare
from coherence.lab.grid import Grid
from coherence.lab.running.shares import Share, read_share, share_of, shares_of
from coherence.lab.runs import Run, RunMismatch
from coherence.lab.runs.files import read_json
from coherence.lab.settings import average, mnist, sgd, winsorize
from coherence.lab.training.classification import Classification

ROOT = Path(__file__).resolve().parents[3]
TOY = collect(load(ROOT / "experiments" / "toy.py"))
SLURM = {f"SLURM_ARRAY_TASK_{name}": value for name, value in (("MIN", "1"), ("MAX", "16"))}


def grid(arms, seeds):
    """Arms by name and number of steps, or by settings."""
    made = {
        name: Classification(steps=arm) if isinstance(arm, int) else arm
        for name, arm in arms.items()
    }
    return Grid(made, seeds, Path("nowhere"))


def runs_of(units):
    return [(unit.arm, seed) for unit in units for seed in unit.seeds]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 16, 40])
def test_every_run_is_in_one_share(count):
    whole = grid({"short": 10, "long": 1000, "other": 300}, seeds=5)
    shares = shares_of(whole, count)
    assert len(shares) == count
    together = [run for units in shares for run in runs_of(units)]
    assert sorted(together) == sorted(itertools.product(whole.arms, range(5)))
    assert share_of(whole, Share(count, count)) == shares[-1]


def test_shares_are_as_long_as_runs_allow():
    whole = grid({f"arm {i}": 100 for i in range(5)}, seeds=8)
    for count in (2, 3, 4, 5, 8, 10):
        lengths = [sum(map(whole.steps, units)) for units in shares_of(whole, count)]
        assert sum(lengths) == 5 * 8 * 100
        assert max(lengths) <= sum(lengths) / count + 100


def test_the_seeds_of_an_arm_stay_together_where_that_is_even():
    whole = grid({f"arm {i}": 100 for i in range(4)}, seeds=8)
    for units in shares_of(whole, 4):
        ((_, seeds),) = units
        assert seeds == tuple(range(8))
    assert all(len(unit.seeds) == 4 for units in shares_of(whole, 8) for unit in units)


def test_arms_of_one_program_are_neighbours():
    base = Classification(data=mnist(examples=100))
    arms = {
        "plain": base,
        "pulled": dataclasses.replace(base, aggregator=winsorize(2)),
        "plain, slower": dataclasses.replace(base, optimizer=sgd(0.01)),
        "pulled, other data": dataclasses.replace(
            base, aggregator=winsorize(2), data=mnist(examples=200)
        ),
        "momentum": dataclasses.replace(base, optimizer=sgd(0.1, momentum=0.9)),
        "plain by name": dataclasses.replace(base, aggregator=average()),
    }
    (row,) = shares_of(grid(arms, seeds=1), 1)
    order = ["plain", "plain, slower", "plain by name", "pulled", "pulled, other data", "momentum"]
    assert [unit.arm for unit in row] == order


@pytest.mark.parametrize(
    ("text", "environment", "share"),
    [
        ("3/16", {}, (3, 16)),
        ("1/1", {}, (1, 1)),
        ("auto", {**SLURM, "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "16"}, (3, 16)),
        ("auto/16", {**SLURM, "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "16"}, (3, 16)),
        ("auto", {**SLURM, "SLURM_ARRAY_TASK_ID": "6", "SLURM_ARRAY_TASK_COUNT": "4"}, (2, 4)),
        ("auto/16", {"JOB_COMPLETION_INDEX": "0"}, (1, 16)),
        ("auto/16", {"JOB_COMPLETION_INDEX": "15"}, (16, 16)),
    ],
)
def test_a_share_is_read(text, environment, share):
    assert read_share(text, environment) == Share(*share)


@pytest.mark.parametrize(
    ("text", "environment", "message"),
    [
        ("0/4", {}, r"--share 0/4: expected K/N with K from 1 to N, such as 3/16"),
        ("5/4", {}, r"--share 5/4: expected K/N with K from 1 to N"),
        ("a/b", {}, r"--share a/b: expected K/N"),
        ("-1/4", {}, r"--share -1/4: expected K/N"),
        ("3", {}, r"--share 3: expected K/N"),
        ("1/2/3", {}, r"--share 1/2/3: expected K/N"),
        ("", {}, r"--share : expected K/N"),
        ("auto/x", {}, r"--share auto/x: expected K/N"),
        ("auto", {}, r"this is no task of an array job .* Say the share: --share 3/16"),
        ("auto", {"JOB_COMPLETION_INDEX": "2"}, r"not of how many\. Say .*: --share auto/16"),
        ("auto/4", {"JOB_COMPLETION_INDEX": "4"}, r"expected K/N .*; this is task 5 of 4"),
        ("auto", {**SLURM, "SLURM_ARRAY_TASK_ID": "3"}, r"not all of SLURM_ARRAY_TASK_MIN"),
        (
            "auto",
            {**SLURM, "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "4"},
            r"the tasks of this array \(4 from 1 to 16\) are not evenly spaced",
        ),
        (
            "auto/8",
            {**SLURM, "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "16"},
            r"--share auto/8: the array job has 16 tasks\. Say as many, or auto",
        ),
    ],
)
def test_what_is_no_share_names_the_way_out(text, environment, message):
    with pytest.raises(ValueError, match=message):
        read_share(text, environment)


def test_shares_end_as_the_whole_does_and_record_nothing_else(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    command = ["run", "toy", "--preset", "smoke", "--steps", "20", "--seeds", "2"]
    for name in ("whole", "shared"):
        monkeypatch.setenv("COHERENCE_RUNS", str(tmp_path / name))
        if name == "shared":
            for number in (3, 1, 2):
                cli.main([*command, "--share", f"{number}/3"])
            said = capsys.readouterr().out
            assert "share 2/3: its 2 of 8 runs are done; when all shares are, the same" in said
            (folder,) = (tmp_path / "shared" / "toy").iterdir()
            files = {path.name for path in folder.iterdir() if path.is_file()}
            assert files == {"begun.json", "claims.json"}
            dates = [read_json(path)["finished"] for path in sorted(folder.rglob("DONE"))]
            assert len(dates) == 8
        cli.main(command)
    assert [read_json(path)["finished"] for path in sorted(folder.rglob("DONE"))] == dates
    assert kill.differences(tmp_path / "whole", tmp_path / "shared") == []


@pytest.mark.parametrize(
    ("part", "key", "message"),
    [
        ("code", "sources", r"code\.sources: \"another\", not \"[0-9a-f]{12}\""),
        ("code", "jax", r"code\.jax: \"another\", not \"0\."),
        ("settings", "learning_rate", r"settings\.learning_rate: \"another\", not 0\.1"),
    ],
)
def test_a_share_with_other_code_or_settings_is_refused(tmp_path, part, key, message):
    settings = TOY.presets["smoke"]
    prepare(TOY, settings, tmp_path)
    check_begun(TOY, dataclasses.replace(settings, seeds=9), tmp_path)
    begun = tmp_path / "begun.json"
    values = read_json(begun)
    values[part][key] = "another"
    begun.write_text(json.dumps(values))
    with pytest.raises(RunMismatch, match=message) as refused:
        check_begun(TOY, settings, tmp_path)
    assert f"to share with it, delete {begun}" in str(refused.value)


def test_a_share_of_another_experiment_s_runs_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COHERENCE_RUNS", str(tmp_path))
    place = tmp_path / "toy" / "smoke" / "learnable-mean" / "seed=0"
    Run.open(place, {"kind": "Toy", "learning_rate": 0.1}, seed=0).close()
    with pytest.raises(SystemExit, match="2"):
        cli.main(["run", "toy", "--preset", "smoke", "--share", "1/4"])
    assert "holds another run (" in capsys.readouterr().err


def test_a_share_records_nothing(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit, match="2"):
        cli.main(["run", "toy", "--share", "1/4", "--record"])
    assert "When all shares are done: coherence run toy --record." in capsys.readouterr().err


def test_the_job_of_the_guide_says_its_number_twice_alike():
    yaml = pytest.importorskip("yaml")
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "scaling.md").read_text(), re.S)
    spec = yaml.safe_load(text)["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    indices = range(spec["completions"])
    shares = [
        read_share(container["command"][-1], {"JOB_COMPLETION_INDEX": str(index)})
        for index in indices
    ]
    assert shares == [Share(index + 1, len(indices)) for index in indices]
