"""`show`: what a run is and how it went, whatever state it is in."""

import pytest

from coherence.lab.report import describe
from coherence.lab.runs import Run
from tests.lab.report import recorded


def test_a_run_says_what_it_is_and_how_it_went(tmp_path):
    recorded.run(tmp_path / "seed=4", seed=4)
    said = describe(tmp_path, width=120)
    assert f"{tmp_path}/seed=4: seed 4, done, 13 records" in said
    assert "model             FullyConnected(width=64, depth=3)" in said
    assert "device            cpu" in said
    assert "took              " in said
    assert "over training, 8 of 13 steps" in said
    assert "probe train\nstep  m_coherence" in said
    assert "probe train, by layer at step 280\nlayer     m_coherence" in said
    assert "\npristine" in said
    assert "least coherent: " in said


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_table_is_wider_than_the_terminal(tmp_path, width):
    recorded.run(tmp_path / "seed=0")
    blocks = describe(tmp_path, width=width).split("\n\n")[2:]
    tables = [block for block in blocks if "part of step" not in block]
    assert max(len(line) for block in tables for line in block.splitlines()) <= max(
        width, len("probe train, by layer at step 280")
    )


def test_the_examples_named_are_those_that_contribute_most_and_least(tmp_path):
    run = recorded.run(tmp_path / "seed=0")
    contributions = run.records()[-1]["train/contributions"]
    order = sorted(range(len(contributions)), key=lambda i: -contributions[i])
    most, least = describe(tmp_path, width=120).splitlines()[-2:]
    assert [int(one.split(" (")[0]) for one in most.split(": ", 1)[1].split("), ")] == order[:10]
    assert [int(one.split(" (")[0]) for one in least.split(": ", 1)[1].split("), ")] == order[::-1][
        :10
    ]
    assert ("corrupt" in most.split("), ")[0]) == (order[0] < recorded.EXAMPLES / 2)


def test_a_diverged_run_reads_to_where_it_was_last_a_number(tmp_path):
    recorded.run(tmp_path / "seed=0", diverges_at=100)
    said = describe(tmp_path, width=120)
    assert "diverged: a loss is nan or infinite from step 100" in said
    assert "by layer at step 36" in said
    assert "60 examples by their part of step 36, 1x the average" in said
    assert "280         nan" in said


def test_what_is_nan_throughout_takes_no_column(tmp_path):
    recorded.run(tmp_path / "seed=0", noise=0.0)
    said = describe(tmp_path, width=120)
    assert "nan throughout: corrupt_accuracy" in said
    assert said.count("corrupt_accuracy") == 1


def test_an_unfinished_run_says_so(tmp_path):
    recorded.run(tmp_path / "seed=0", ends_at=60, probes=False)
    assert "seed 0, unfinished, no checkpoint, 10 records" in describe(tmp_path)
    with Run.open(tmp_path / "seed=0", recorded.config(), seed=0) as run:
        run.checkpoint(60, {"x": [1.0]})
    assert "unfinished, checkpoints at 60" in describe(tmp_path)


def test_a_run_without_records_is_described(tmp_path):
    Run.open(tmp_path / "seed=0", {"kind": "Empty"}, seed=0).close()
    assert "seed 0, unfinished, no checkpoint, 0 records" in describe(tmp_path)


def test_each_probe_is_shown_at_its_own_steps(tmp_path):
    with Run.open(tmp_path / "seed=0", {}, seed=0) as run:
        for step in range(100):
            run.append(
                {"step": step, "train_loss": 1.0} | ({"train/alpha": 0.5} if step % 33 == 7 else {})
            )
    probe = describe(tmp_path, width=80).split("probe train\n")[1]
    assert probe.splitlines() == ["step  alpha", "   7    0.5", "  40    0.5", "  73    0.5"]


def test_rows_are_steps_at_which_most_was_measured(tmp_path):
    with Run.open(tmp_path / "seed=0", {}, seed=0) as run:
        for step in range(100):
            run.append(
                {"step": step, "train_loss": 1.0} | ({"test_loss": 2.0} if step % 30 == 5 else {})
            )
    table = describe(tmp_path, width=80).split("over training\n")[1]
    assert [line.split() for line in table.splitlines()[1:]] == [
        [str(step), "1", "2"] for step in (5, 35, 65, 95)
    ]


def test_several_runs_get_a_line_each_and_what_they_share(tmp_path):
    for noise in (0.0, 0.5):
        recorded.run(
            tmp_path / f"noise={noise}" / "seed=0",
            noise=noise,
            probes=False,
            ends_at=60 if noise else None,
        )
    said = describe(tmp_path, width=200)
    assert "2 runs, 1 done" in said
    assert "learning_rate=0.1" in said.split("\n\n")[1]
    assert "noise.fraction" not in said.split("\n\n")[1]
    rows = [line.split() for line in said.splitlines() if line.startswith("noise=")]
    assert [(row[0], row[1], row[2], row[3]) for row in rows] == [
        ("noise=0.0/seed=0", "280", "done", "0.0"),
        ("noise=0.5/seed=0", "60", "unfinished", "0.5"),
    ]


@pytest.mark.parametrize("file", ["config.json", "manifest.json", "metrics.jsonl"])
@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b"\xff\xfe{}", b"{}\n{]\n"])
def test_a_run_that_cannot_be_read_is_named_and_hides_no_other(tmp_path, file, content):
    for seed in range(3):
        recorded.run(tmp_path / f"seed={seed}", seed, probes=False, ends_at=5)
    (tmp_path / "seed=1" / file).write_bytes(content)
    text = describe(tmp_path, width=200)
    assert "seed=0" in text
    assert "seed=2" in text
    if file != "metrics.jsonl" or content.endswith(b"\n"):  # others end in a torn line
        assert "could not be read:" in text
        assert str(tmp_path / "seed=1") in text.split("could not be read:")[1]


def test_a_single_run_that_cannot_be_read_is_an_error(tmp_path):
    recorded.run(tmp_path / "seed=0", probes=False)
    (tmp_path / "seed=0" / "metrics.jsonl").write_bytes(b"{]\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl is (damaged|not what)"):
        describe(tmp_path)


def test_columns_beyond_three_tables_are_named(tmp_path):
    with Run.open(tmp_path / "seed=0", {}, seed=0) as run:
        run.append({"step": 0} | {f"quantity_{i}": 1.0 for i in range(12)})
    assert "and 6 more: quantity_6, quantity_7" in describe(tmp_path, width=30)


def test_tables_in_markdown_are_tables(tmp_path):
    recorded.run(tmp_path / "seed=0")
    assert "| layer | m_coherence | gsnr |\n| --- | --- | --- |\n| hidden_0 |" in describe(
        tmp_path, "markdown"
    )


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r'describe\(format\): "text", "markdown" or "latex", got \'html\'\.'
    ):
        describe(tmp_path, "html")
