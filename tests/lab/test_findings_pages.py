"""The pages of claims and figures say what is recorded, and are current."""

import csv
import dataclasses
import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coherence.lab import claims, cli, runs
from coherence.lab.report import findings, forest, gallery, summary

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def found():
    return findings.recordings(ROOT)


@pytest.fixture(scope="module")
def told(found):
    return summary.read(ROOT, found)


def test_the_pages_of_claims_are_what_their_command_writes(told):
    page = (ROOT / summary.PAGE).read_text()
    date = re.search(r"As of (\d{4}-\d\d-\d\d);", page)[1]
    stale = "stale: run coherence claims --write"
    assert page == summary.page(told, date), stale
    pages = summary.pages(told)
    assert {ROOT / path for path in pages} == set((ROOT / summary.PAGES).glob("*.md")), stale
    for path, text in pages.items():
        assert (ROOT / path).read_text() == text, stale
    readme = (ROOT / "README.md").read_text()
    assert readme == summary.with_summary(readme, told), stale
    assert all(sentence in " ".join(readme.split()) for sentence in told.sentences)
    assert (ROOT / summary.PAGES / "forest.csv").read_text() == forest.data(told), stale
    with Image.open(ROOT / summary.PAGES / "forest.png") as png:
        assert png.info["Source"] == forest.stamp(forest.data(told)), stale


def test_the_page_of_figures_is_what_its_command_writes(found):
    assert (ROOT / findings.FIGURES_PAGE).read_text() == findings.figures_page(ROOT, found), (
        "stale: run coherence figures"
    )


def test_every_claim_is_there_with_its_source_verdict_scale_and_run(told):
    pages = summary.pages(told)
    for finding in told.recordings:
        page = pages[summary.PAGES / f"{gallery.stem(finding.name)}.md"].replace("\\|", "|")
        for judgement in finding.judgements:
            for part in (f"**{judgement.claim.name}**", judgement.claim.source.reference):
                assert part in page
            for part in (f"*{judgement.verdict}*", judgement.scale, judgement.run):
                assert part in page


def test_what_a_paper_claims_is_reproduced_or_it_says_why_not(told):
    for finding in told.recordings:
        for judgement in finding.judgements:
            if judgement.claim.source.group == "papers" and judgement.verdict != "reproduced":
                assert summary.why(told, finding.name, judgement), (
                    f"{finding.name}: say in {summary.ROWS} why not: {judgement.claim.name}"
                )


def test_the_papers_verdicts_are_counted_at_each_scale_apart(told):
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in summary.page(told, "2000-01-01").splitlines()
        if line.startswith("| the papers' claims, at ")
    ]
    judged = [
        (j.at_source_scale, j.verdict)
        for j in findings.all_judgements(told.recordings)
        if j.claim.group == "papers"
    ]
    verdicts = ("reproduced", "not reproduced", "inconclusive")
    count = lambda *case: str(judged.count(case))
    assert [row[1:] for row in rows] == [
        [count(at_source_scale, verdict) for verdict in verdicts]
        for at_source_scale in (False, True)
    ]


def test_the_short_table_is_short_and_each_row_that_does_not_hold_says_why(told):
    assert 16 <= len(told.rows) <= 30
    assert [row.group for row in told.rows] == sorted(
        (row.group for row in told.rows), key=["papers", "ours", "tutorials"].index
    )
    for row in told.rows:
        judged = [*row.exact, *filter(None, (row.small, row.source))]
        assert judged, row.title
        if any(judgement.verdict != "reproduced" for judgement in judged):
            assert row.why, row.title
    assert len(told.sentences) == 3
    cells = {row.title: row.cells()[2] for row in told.rows}
    assert cells["Naive Bayes leads with the fewest examples"].endswith(", 8 data sets")
    assert cells["Wider networks generalize better"].endswith(", 16 seeds")


def test_kinds_of_claims_are_counted_apart(found, told):
    judgements = findings.all_judgements(found)
    counted = findings.counts(judgements)
    numbers = [
        int(number) for number in re.findall(r"(\d+) (?:not |in)?(?:repro|conclusive)", counted)
    ]
    assert sum(numbers) == len(judgements)
    assert "exact checks: " in counted
    page = summary.page(told, "today")
    rows = re.findall(r"^\| [^|]+ \| (\d+) \| (\d+) \| (\d+) \|$", page, re.MULTILINE)
    assert sum(int(number) for row in rows for number in row) == len(judgements)
    assert len(rows) == 5  # the papers' by scale


def test_verdicts_come_as_json_csv_and_latex(told, found, capsys, monkeypatch):
    monkeypatch.setattr(findings, "recordings", lambda *_: found)
    printed = {}
    for option in ("--json", "--csv", "--latex", "--all"):
        cli.main(["claims", option])
        printed[option] = capsys.readouterr().out
    count = len(findings.all_judgements(found))
    values = json.loads(printed["--json"])
    assert len(values["verdicts"]) == count
    assert [row["finding"] for row in values["rows"]] == [row.title for row in told.rows]
    lines = list(csv.DictReader(io.StringIO(printed["--csv"])))
    assert len(lines) == count
    first = values["verdicts"][0]
    assert (lines[0]["claim"], lines[0]["verdict"]) == (first["claim"], first["verdict"])
    latex = printed["--latex"]
    assert latex.startswith(r"\begin{tabular}")
    assert latex.count(r"\\") == 1 + 3 + len(told.rows)
    assert not re.search(r"(?<!\\)[%&#_](?![^\n]*&)", latex.replace(" & ", " "))
    assert printed["--all"].count("measured: ") == count


def test_a_row_about_no_verdict_is_named(toy):
    (toy / summary.ROWS).write_text('[why.toy]\n"no such claim" = "seeds"\n')
    with pytest.raises(ValueError, match=r"reproducing.toml: no claim 'toy: no such claim' was"):
        summary.read(toy, findings.recordings(toy))


def test_one_seed_is_hollow_and_in_the_small_scales_deviations(told):
    row = next(row for row in told.rows if row.small and row.source and row.small.n > 1)
    row = dataclasses.replace(row, source=dataclasses.replace(row.source, n=1))
    (small, single), (source, hollow) = summary.standard_effects(row)
    assert (single, hollow) == (False, True)
    assert small == row.small.standard
    unit = (row.small.effect.mean - row.small.claim.threshold) / row.small.standard.mean
    distance = row.source.effect.mean - row.source.claim.threshold
    assert abs(source.mean) == pytest.approx(abs(distance / unit))


def test_an_effect_that_is_not_a_number_has_no_dot_in_the_forest(told):
    nan = summary.Interval(*[float("nan")] * 3)
    first = next(row for row in told.rows if row.small and row.source)
    unknown = dataclasses.replace(first.small, standard=nan)
    here = lambda *rows: dataclasses.replace(told, rows=list(rows))
    alone = dataclasses.replace(first, small=unknown, source=None)
    assert forest.data(here(alone)) == forest.data(here())
    panel = forest.draw(here(dataclasses.replace(first, small=unknown))).axes[0]
    dots = [line for line in panel.lines if line.get_marker() == "o"]
    assert [bool(np.isnan(line.get_xdata()[0])) for line in dots] == [True, False]


def test_an_effect_stands_at_its_own_scale_where_the_other_has_none():
    claim = claims.Claim("c", "A.", claims.Source("ours: x", "derived"), "a", "greater")
    small, source = (claims.judge(claim, values, scale="x") for values in ([1.0], [1.0, 2.0, 3.0]))
    row = summary.Row("ours", "t", [], small, source, "")
    unknown, known = forest.data(summary.Summary([], [], [row], {}, {})).splitlines()[1:]
    assert unknown == "t,ours,small,nan,nan,nan,True"
    assert known.startswith(f"t,ours,source,{source.standard.mean}")


def test_every_experiment_is_recorded_or_said_to_be_pending(found, told):
    """Pending may also be a preset of one that is recorded, under the name of its recording."""
    stems = {gallery.stem(name) for name in [f.name for f in found] + list(told.pending)}
    assert stems == findings.experiments(ROOT).keys()
    page = summary.page(told, "2026-11-28")
    assert all(f"- {name}: {what}." in page for name, what in told.pending.items())


def test_an_experiment_cannot_be_pending_and_recorded(toy):
    (toy / summary.ROWS).write_text('[pending]\ntoy = "a minute"\n')
    with pytest.raises(ValueError, match=r"reproducing.toml: pending, but recorded: toy"):
        summary.read(toy, findings.recordings(toy))


def test_every_figure_has_a_caption(found):
    page = findings.figures_page(ROOT, found)
    for finding in found:
        title, caption = findings.caption_of(ROOT, gallery.stem(finding.name))
        assert f"**{title}**" in page
        assert len(caption.split()) >= 30, f"{finding.name}: say what there is to see"


def copy(home, *files):
    """Files of this checkout, copied into another."""
    for file in files:
        (home / file).parent.mkdir(parents=True, exist_ok=True)
        (home / file).write_bytes((ROOT / file).read_bytes())


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A checkout with two experiments, recorded."""
    (tmp_path / "docs").mkdir()
    for name in ("toy", "width"):
        copy(tmp_path, f"experiments/{name}.py", f"experiments/claims/{name}.toml")
        copy(tmp_path, f"paper_figures/recorded/{name}.npz")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def damage(path, how):
    whole = path.read_bytes()
    if how == "other arrays":
        runs.save_arrays(path, x=1.0)
    else:
        path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"no zip"}[how])


@pytest.mark.parametrize("how", ["cut", "empty", "text", "other arrays"])
@pytest.mark.parametrize("command", ["list", "claims"])
def test_a_damaged_recording_is_named_and_hides_no_other(toy, capsys, command, how):
    path = toy / "paper_figures" / "recorded" / "width.npz"
    damage(path, how)
    with pytest.raises(SystemExit, match="2"):
        cli.main([command])
    out, error = capsys.readouterr()
    assert "5 reproduced" in out or "not tested at the source's scale" in out or "holds on" in out
    assert str(path) in error
    assert len(error.splitlines()) == 1
    with pytest.raises(SystemExit, match="2"):
        cli.main(["claims", "--write"])
    assert not (toy / "docs" / "reproducing.md").exists()


def test_a_recording_without_its_experiment_is_named(toy, capsys):
    (toy / "experiments" / "width.py").unlink()
    with pytest.raises(SystemExit, match="2"):
        cli.main(["list"])
    assert "width.npz belongs to no experiment" in capsys.readouterr().err


def test_other_numbers_are_another_run(tmp_path):
    ids = []
    for value in (1.0, 1.0, 2.0):
        runs.save_arrays(tmp_path / "recorded.npz", x=value)
        ids.append(findings.run_id(tmp_path / "recorded.npz", "toy/cpu"))
    assert ids[0] == ids[1] != ids[2]
    assert re.fullmatch(r"toy/cpu@[0-9a-f]{8}", ids[0])


def test_a_preset_of_its_own_has_a_figure_of_its_own():
    assert gallery.name("width", "cpu", "cpu") == "width"
    assert gallery.name("width", "paper", "cpu") == "width-paper"
    assert gallery.stem("width-paper") == "width"


def test_the_commands_write_the_pages(tmp_path, monkeypatch, capsys):
    (tmp_path / "docs").mkdir()
    copy(tmp_path, "experiments/toy.py", "experiments/claims/toy.toml")
    copy(tmp_path, "paper_figures/toy.py", "paper_figures/recorded/toy.npz")
    monkeypatch.chdir(tmp_path)
    cli.main(["figures"])
    assert "toy: redrawn, toy.png is missing" in capsys.readouterr().out
    assert "![" in (tmp_path / "paper_figures" / "README.md").read_text()
    cli.main(["claims", "--write"])
    assert "## toy\n" in (tmp_path / "docs" / "reproducing" / "toy.md").read_text()
    assert "(reproducing/toy.md)" in (tmp_path / "docs" / "reproducing.md").read_text()


MOVING = """
import numpy as np
from matplotlib.figure import Figure

def draw(recorded):
    return Figure()

def animate(recorded):
    return np.multiply.outer(recorded["x"], np.ones((6, 4))).astype(np.{kind})
"""


@pytest.fixture
def moving(tmp_path):
    """A checkout whose one figure has an animation."""
    home = tmp_path / "paper_figures"
    runs.save_arrays(home / "recorded" / "moving.npz", x=np.array([0, 100, 200]))
    (home / "moving.py").write_text(MOVING.format(kind="uint8"))
    return tmp_path


def test_a_figure_that_moves_is_drawn_as_a_gif_too_the_same_every_time(moving):
    from PIL import Image

    *_, gif = gallery.draw(moving, "moving")
    with Image.open(gif) as film:
        seen = []
        for i in range(film.n_frames):
            film.seek(i)
            seen.append(np.asarray(film.convert("L")))
    assert np.array_equal(seen, np.multiply.outer([0, 100, 200], np.ones((6, 4))))
    before = gif.read_bytes()
    gallery.draw(moving, "moving")
    assert gif.read_bytes() == before


def test_a_figure_is_laid_out_once_for_all_its_files(tmp_path, monkeypatch):
    from fontTools import subset
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    times, execute, options = [], ConstrainedLayoutEngine.execute, subset.Options
    monkeypatch.setattr(
        ConstrainedLayoutEngine, "execute", lambda *args: (times.append(1), execute(*args))[1]
    )
    gallery.draw(ROOT, "width", folder=tmp_path)
    assert len(times) == 1
    assert subset.Options is options


def test_a_figure_that_moves_is_stale_without_its_gif_and_when_it_begins_to_move(moving):
    source = moving / "paper_figures" / "moving.py"
    source.write_text(MOVING.partition("def animate")[0])
    assert [path.suffix for path in gallery.draw(moving, "moving")] == [".png", ".pdf", ".csv"]
    assert gallery.stale(moving, "moving") is None
    source.write_text(MOVING.format(kind="uint8"))
    assert gallery.stale(moving, "moving") == "moving.gif is missing"
    *_, gif = gallery.draw(moving, "moving")
    assert gallery.stale(moving, "moving") is None
    source.write_text(MOVING.format(kind="uint8") + "# slower")
    assert gallery.stale(moving, "moving") == "moving.py changed"
    gif.unlink()
    assert gallery.stale(moving, "moving") == "moving.gif is missing"


def test_a_figure_of_two_pages_is_drawn_shown_and_stale_as_one(found, moving, tmp_path):
    source = MOVING.partition("def animate")[0]
    file = moving / "paper_figures" / "moving.py"
    file.write_text(f"{source}\n\ndef draw_2(recorded):\n    return Figure(figsize=(2, 2))\n")
    names = [path.name.removeprefix("moving.") for path in gallery.draw(moving, "moving")]
    assert names == ["png", "pdf", "csv", "2.png", "2.pdf", "2.csv"]
    assert gallery.stale(moving, "moving") is None
    folder = moving / "paper_figures" / "drawn"
    with Image.open(folder / "moving.png") as first, Image.open(folder / "moving.2.png") as second:
        assert first.size != second.size
    (folder / "moving.2.pdf").unlink()
    assert gallery.stale(moving, "moving") == "moving.2.pdf is missing"
    quick = gallery.draw(moving, "moving", folder=tmp_path / "quick", quick=True)
    assert [path.suffix for path in quick] == [".png", ".csv", ".png", ".csv"]
    assert "(drawn/circles.2.png)" in findings.figures_page(ROOT, found)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_damaged_figure_is_stale(moving, share):
    png, *_ = gallery.draw(moving, "moving")
    whole = png.read_bytes()
    png.write_bytes(whole[: int(share * len(whole))])
    assert gallery.stale(moving, "moving") == "moving.png is damaged"


@pytest.mark.parametrize("suffix", ["png", "pdf", "csv", "gif"])
def test_a_figure_interrupted_between_its_files_is_stale_and_none_is_half(
    moving, monkeypatch, suffix
):
    before = [path.read_bytes() for path in gallery.draw(moving, "moving")]
    runs.save_arrays(gallery.recording(moving, "moving"), x=np.array([0, 50, 200]))
    rename = os.replace

    def killed(source, target):
        if str(target).endswith(suffix):
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        gallery.draw(moving, "moving")
    monkeypatch.undo()
    assert gallery.stale(moving, "moving") == "recorded arrays changed"
    folder = moving / "paper_figures" / "drawn"
    assert sorted(path.suffix for path in folder.iterdir()) == [".csv", ".gif", ".pdf", ".png"]
    after = [path.read_bytes() for path in gallery.draw(moving, "moving")]
    assert after[-1] != before[-1]
    assert gallery.stale(moving, "moving") is None


def test_frames_that_are_no_grey_levels_are_refused(moving):
    (moving / "paper_figures" / "moving.py").write_text(MOVING.format(kind="float32"))
    with pytest.raises(
        ValueError,
        match=r"uint8 \[frames, height, width\]; for moving.gif it gave float32 of shape \(3, 6,",
    ):
        gallery.draw(moving, "moving")


def test_the_page_of_figures_shows_what_moves(found, moving):
    one = next(finding for finding in found if finding.name == "toy")
    (moving / "paper_figures" / "toy.py").write_text('"""Toy."""' + MOVING.format(kind="uint8"))
    assert "![Toy., moving](drawn/toy.gif)" in findings.figures_page(moving, [one])
    assert ".gif" not in findings.figures_page(ROOT, [one])


TINY = '''
"""One is one."""

import numpy as np

from tests.lab.test_findings_pages import Arm, Settings

PRESETS = {"cpu": Settings()}
arms = lambda settings: {"all": Arm()}
record = lambda settings, runs: {"x": np.array([r.load("computed")["x"] for r in runs["all"]])}
judge = lambda recorded: {"one": recorded["x"]}
table = lambda recorded: "one"
'''


OF_TINY = """
[sources.here]
reference = "ours"
known = "derived"

[[claims]]
name = "one"
source = "here"
text = "It is one."
measured = "it"
equals = 1
within = 0
"""


@dataclasses.dataclass(frozen=True)
class Settings:
    seeds: int = 2


@dataclasses.dataclass(frozen=True)
class Arm:
    """A run that trains nothing."""

    def describe(self):
        return "nothing"

    def compute(self, seed):
        return {"x": np.float64(1)}


def test_a_figure_never_recorded_is_named_and_run_only_if_one_says_so(
    tmp_path, monkeypatch, capsys
):
    for file, text in (
        ("experiments/tiny.py", TINY),
        ("experiments/claims/tiny.toml", OF_TINY),
        ("paper_figures/tiny.py", MOVING.partition("def animate")[0]),
    ):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COHERENCE_RUNS", str(tmp_path / "runs"))
    cli.main(["figures"])
    named = "tiny: nothing recorded; `coherence run tiny --record`"
    assert named in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        cli.main(["figures", "tiny"])
    error = capsys.readouterr().err
    assert named in error
    assert "nothing is trained unasked. Run the above, or: coherence figures tiny --train" in error
    assert not (tmp_path / "runs").exists()
    cli.main(["figures", "tiny", "--train"])
    assert "tiny: nothing recorded, so it is run with its preset cpu" in capsys.readouterr().out
    recorded = runs.load_arrays(tmp_path / "paper_figures" / "recorded" / "tiny.npz")
    assert recorded["x"].tolist() == [1, 1]
    fixed = tmp_path / "runs" / "tiny" / "cpu" / "claims.json"
    assert str(recorded["claims"]) == fixed.read_text()
    assert (tmp_path / "paper_figures" / "drawn" / "tiny.png").exists()


def test_a_claim_changed_after_its_recording_says_so(tmp_path, monkeypatch, capsys):
    for file, text in (("tiny.py", TINY), ("claims/tiny.toml", OF_TINY)):
        (tmp_path / "experiments" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "experiments" / file).write_text(text)
    copy(tmp_path, "paper_figures/toy.py")
    (tmp_path / "paper_figures" / "toy.py").rename(tmp_path / "paper_figures" / "tiny.py")
    monkeypatch.chdir(tmp_path)
    recording = gallery.recording(tmp_path, "tiny")
    recording.parent.mkdir()
    before = findings.experiments(tmp_path)["tiny"].digests()
    arrays = {"x": np.ones(2), "scale": "one", "at_source_scale": False}
    claims = tmp_path / "experiments" / "claims" / "tiny.toml"
    for stored, text, changed in (
        ({"claims": json.dumps(before)}, OF_TINY, False),
        ({"claims": json.dumps(before)}, OF_TINY.replace("within = 0", "within = 2"), True),
        ({}, OF_TINY, False),
    ):
        runs.save_arrays(recording, **arrays, **stored)
        claims.write_text(text)
        cli.main(["claims", "--all"])
        assert ("changed after the recording" in capsys.readouterr().out) == changed
    (recording.parent / "claims.json").write_text(json.dumps({"tiny": {"one": "another"}}))
    cli.main(["claims", "--all"])
    assert "changed after the recording" in capsys.readouterr().out
