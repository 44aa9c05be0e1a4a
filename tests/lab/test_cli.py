"""The command: what it prints, and that every mistake ends in one line with the way out."""

import ast
import csv
import dataclasses
import io
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.text import Text

from coherence.lab import cli, commands, running, runs
from coherence.lab.experiment import collect, load
from coherence.lab.report import drawing, findings, gallery
from tests.lab.report import recorded

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COHERENCE_RUNS", str(tmp_path / "runs"))
    return tmp_path


def fails(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(list(arguments))
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_list_names_every_experiment_with_what_was_found(capsys):
    cli.main(["list"])
    said = capsys.readouterr().out
    for path in (ROOT / "experiments").glob("*.py"):
        assert f"{path.stem}\n    {collect(load(path)).summary}" in said
    assert re.search(r"\n    presets: smoke( \(\d+ s\))?, cpu( \(\d+ s\))?, paper\n", said)
    assert "\n    cpu: exact checks: 5 reproduced\n" in said
    assert "presets: smoke (10 s), cpu (44 min)" in said  # winsorization
    assert "\ntimes as measured on 2 CPUs, Linux x86_64\n" in said


@pytest.mark.parametrize("preset", ["smoke", "paper"])
def test_the_toy_runs_judges_and_draws(capsys, here, preset):
    cli.main(["run", "toy", "--preset", preset, "--steps", "60"])
    said = capsys.readouterr().out
    assert said.count("reproduced") == 5
    assert "not reproduced" not in said
    (folder,) = (here / "runs" / "toy").iterdir()
    suffixes = ("png", "csv") if preset == "smoke" else ("png", "pdf", "csv")
    assert sorted(path.suffix for path in folder.glob("toy.*")) == sorted(f".{s}" for s in suffixes)
    assert all((folder / f"toy.{suffix}").stat().st_size > 500 for suffix in suffixes)
    header, *rows = (folder / "toy.csv").read_text().splitlines()
    assert header == "panel,curve,x,y,low,high"
    assert len(rows) > 100
    cli.main(["show", str(folder / "learnable-mean")])
    assert "seed 0, done, 61 records" in capsys.readouterr().out


def test_what_was_recorded_is_shown_compared_and_drawn(capsys, here):
    for seed in range(2):
        for noise in (0.0, 0.5):
            recorded.run(here / f"noise={noise}" / f"seed={seed}", seed, noise=noise)
    one, other = str(here / "noise=0.0"), str(here / "noise=0.5")
    cli.main(["show", f"{one}/seed=1", "--markdown", "--csv", str(here / "long.csv")])
    assert "| step | train_loss |" in capsys.readouterr().out
    assert (here / "long.csv").read_text().startswith("run,seed,step,quantity,part,value\n")
    cli.main(["compare", one, other, "--csv", str(here / "compared.csv")])
    assert "B - A paired over seeds 0, 1" in capsys.readouterr().out
    assert (
        (here / "compared.csv").read_text().startswith("quantity,value,a,a_low,a_high,a_seeds,b,")
    )
    cli.main(["report", one, other, "--output", str(here / "page.html")])
    assert capsys.readouterr().out == f"report: {here / 'page.html'}\n"
    assert (here / "page.html").read_text().startswith("<!DOCTYPE html>")


def test_changed_fields_get_a_folder_of_their_own(capsys, here):
    cli.main(["run", "toy", "--preset", "smoke", "--learning-rate", "0.05", "--steps", "10"])
    capsys.readouterr()
    run = runs.Run.read(
        here / "runs" / "toy" / "smoke,learning_rate=0.05,steps=10" / "learnable-mean" / "seed=0"
    )
    assert (run.config["optimizer"]["learning_rate"], run.config["steps"]) == (0.05, 10)


def test_a_flag_of_the_run_needs_no_path_where_only_the_run_has_it():
    settings = load(ROOT / "experiments" / "real_vs_random.py").PRESETS["smoke"]
    flags = ["--data", "mnist(examples=100)", "--batch-size=9", "--steps", "7", "8", "--seeds", "1"]
    assert running.qualified(settings, flags) == [
        *("--run.data", "mnist(examples=100)", "--run.batch-size=9"),
        *("--steps", "7", "8", "--seeds", "1"),  # fields of the settings themselves
    ]
    brief = load(ROOT / "experiments" / "depth.py").PRESETS["smoke"]  # its run and its chain
    assert running.qualified(brief, ["--batch-size", "9"]) == ["--batch-size", "9"]


def test_another_run_in_the_folder_is_never_touched(capsys, here):
    folder = here / "runs" / "toy" / "smoke" / "learnable-mean" / "seed=0"
    runs.Run.open(folder, {"kind": "Toy", "learning_rate": 0.1}, seed=0).close()
    said = fails(capsys, "run", "toy", "--preset", "smoke")
    assert "holds another run (" in said
    assert "Give this one another name, or delete that directory." in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nothing"], "no experiment 'nothing': there is activations, "),
        (
            ["run", "toy", "--preset", "huge"],
            "toy has no preset 'huge': there is smoke, cpu, paper",
        ),
        (["run", "toy", "--colour", "red"], "--colour"),
        (["run", "toy", "--preset", "smoke", "--seeds", "0"], "toy seeds: at least 1, got 0."),
        (["run", "toy", "--preset", "smoke", "--seeds", "-1"], "toy seeds: at least 1, got -1."),
        (
            ["run", "toy", "--preset", "smoke", "--steps", "-5"],
            "toy steps: at least 1, got -5 (arm learnable-mean).",
        ),
        (["run", "toy", "--preset", "smoke", "--steps=0"], "toy steps: at least 1, got 0 (arm"),
        (
            ["run", "width", "--preset", "smoke", "--batch-size", "0"],
            "width batch_size: at least 1, got 0 (arm standard-8).",
        ),
        (
            ["run", "width", "--preset", "smoke", "--widths", "8", "8"],
            "width widths: 8 is listed twice, and would be the same runs. Name each once.",
        ),
        (["run", "spam", "--preset", "smoke", "--c"], "spam c: at least one value, got none."),
        (["figures", "nothing"], "no figure 'nothing': there is activations, "),
        (["show", "nowhere"], "nowhere holds no run. Runs go to"),
        (["compare", "nowhere", "nowhere"], "nowhere holds no run. Runs go to"),
        (["report", "nowhere"], "nowhere holds no run. Runs go to"),
        (["export", "nowhere"], "--tensorboard"),
        (["data", "fetch", "nothing"], "nothing"),
        (["list", "extra"], "unrecognized arguments: extra"),
        (["lst"], "no command 'lst'. Did you mean list? `coherence --help` lists them."),
        (["run", "Winsorisation"], "width, winsorization. Did you mean winsorization"),
        (["status", "toi"], "Did you mean toy?"),
        (["run", "toy", "--preset", "papr"], "smoke, cpu, paper. Did you mean paper?"),
        (["figures", "widht"], "Did you mean width?"),
        (["data", "fetch", "mnst"], "Did you mean mnist?"),
        (["show", "expriments"], f"Did you mean .{os.sep}experiments?"),
        (["show", "experiments/clams/toy"], f"Did you mean experiments{os.sep}claims?"),
        (
            ["run", "width", "--preset", "smoke", "--aggregator", "winsorise(2)"],
            "Did you mean winsorize?",
        ),
    ],
)
def test_mistakes_name_the_way_out(capsys, here, arguments, message):
    assert message in fails(capsys, *arguments)
    assert not (here / "runs").exists()


def test_rows_of_values_may_repeat_a_part():
    experiment = collect(load(ROOT / "experiments" / "real_vs_random.py"))
    same = dataclasses.replace(experiment.presets["smoke"], steps=(200, 200))
    assert len(experiment.grid(same)) == 4
    with pytest.raises(ValueError, match=r"steps: 0\.1, 200 is listed twice"):
        experiment.grid(dataclasses.replace(same, learning_rates=(0.1, 0.1)))


def test_an_error_while_runs_are_laid_out_names_the_experiment():
    toy = collect(load(ROOT / "experiments" / "toy.py"))
    uneven = dataclasses.replace(toy, arms=lambda settings: dict(zip("ab", "c", strict=True)))
    with pytest.raises(ValueError, match="toy: of these settings there are no runs \\(zip"):
        uneven.grid(toy.presets["smoke"])


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.py")), ids=lambda p: p.stem)
def test_every_preset_has_runs(path):
    experiment = collect(load(path))
    assert all(experiment.grid(preset) for preset in experiment.presets.values())


def test_a_path_too_long_asks_for_a_shorter_one(capsys, here, monkeypatch):
    monkeypatch.setenv("COHERENCE_RUNS", str(here / ("runs" * 100)))
    said = fails(capsys, "run", "toy", "--preset", "smoke")
    assert "(File name too long)" in said
    assert "COHERENCE_RUNS: set it to a shorter path" in said


def test_without_docstrings_in_memory_experiments_are_listed(here):
    words = [sys.executable, "-OO", "-m", "coherence.lab", "list"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"toy\n    {collect(load(ROOT / 'experiments' / 'toy.py')).summary}\n" in done.stdout


def test_a_second_interrupt_ends_the_command_without_a_traceback(here):
    code = """
import os, signal, sys
from coherence.lab import cli, commands
def interrupted(*_):
    raise KeyboardInterrupt
commands.list_experiments = interrupted
try:
    cli.main(["list"])
finally:
    os.kill(os.getpid(), signal.SIGINT)  # while Python ends
"""
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.stderr == "\ncoherence: interrupted.\n"
    assert done.returncode == -signal.SIGINT


def test_outside_a_checkout_it_says_where_to_get_one(capsys, here, monkeypatch):
    monkeypatch.chdir(here)
    assert "coherence init FOLDER" in fails(capsys, "list")


def only_toy(folder):
    """Leave one experiment of a working folder, which is quickly read."""
    for path in [*folder.glob("experiments/*.*"), *folder.glob("paper_figures/*/*.npz")]:
        if path.stem != "toy":
            path.unlink()


def test_init_writes_a_folder_in_which_everything_works(capsys, here, monkeypatch):
    cli.main(["init", str(here / "mine")])
    assert "then `coherence list`" in capsys.readouterr().out
    monkeypatch.chdir(here / "mine")
    only_toy(here / "mine")
    cli.main(["claims", "--all"])
    assert "shared feature wins" in capsys.readouterr().out
    cli.main(["figures", "toy"])
    assert "toy: redrawn" in capsys.readouterr().out
    assert (here / "mine" / "paper_figures" / "drawn" / "toy.png").stat().st_size > 20_000
    assert "not empty" in fails(capsys, "init", ".")


def test_what_the_wheel_carries_is_read_where_there_is_no_folder_and_never_written(
    capsys, here, monkeypatch
):
    carried = here / "site-packages" / "working_folder"
    cli.main(["init", str(carried)])
    only_toy(carried)
    before = {path: path.read_bytes() for path in carried.rglob("*.*") if path.is_file()}
    monkeypatch.setattr(gallery, "INSTALLED", carried)
    monkeypatch.chdir(here)
    cli.main(["list"])
    assert "toy" in capsys.readouterr().out
    for command in (["figures"], ["claims", "--write"], ["run", "toy", "--record"]):
        assert "coherence init FOLDER" in fails(capsys, *command)
    after = {path: path.read_bytes() for path in carried.rglob("*.*") if path.suffix != ".pyc"}
    assert {path: after[path] for path in before} == before
    assert after.keys() == before.keys()


def test_the_wheel_carries_what_init_writes(here):
    """`setup.py` copies files by patterns; nothing that a working folder needs is left out."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    [patterns] = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "WORKING_FOLDER"
    ]
    carried = [ROOT.glob(f"{folder}/{x}") for folder, each in patterns.items() for x in each]
    gallery.init(here / "mine")
    written = {p.relative_to(here / "mine") for p in (here / "mine").rglob("*") if p.is_file()}
    assert {path.relative_to(ROOT) for path in itertools.chain(*carried)} == written


def test_files_of_a_folder_above_are_run_only_if_it_is_the_project(capsys, here, monkeypatch):
    for folder in ("experiments", "paper_figures", "below"):
        (here / folder).mkdir()
    (here / "experiments" / "theirs.py").write_text("raise SystemExit(77)")
    monkeypatch.chdir(here / "below")
    assert "coherence init FOLDER" in fails(capsys, "list")
    monkeypatch.chdir(here)
    with pytest.raises(SystemExit, match="77"):
        cli.main(["list"])
    monkeypatch.chdir(ROOT / "tests" / "lab")
    assert gallery.checkout() == ROOT


def test_an_unwritable_runs_folder_is_said(capsys, here, monkeypatch):
    (here / "file").write_text("")
    monkeypatch.setenv("COHERENCE_RUNS", str(here / "file"))
    assert "COHERENCE_RUNS" in fails(capsys, "run", "toy", "--preset", "smoke")


def test_a_value_is_refused_before_any_folder_is_made(capsys, here):
    words = fails(capsys, "run", "width", "--preset", "smoke", "--data", "mnist(examples=0)")
    assert "data=mnist(examples=0): mnist(examples): " in words
    assert not (here / "runs").exists()


@pytest.mark.parametrize("name", gallery.names(ROOT))
def test_committed_figures_are_current_and_small(name):
    assert gallery.stale(ROOT, name) is None
    assert (
        ROOT / "paper_figures" / "recorded" / f"{name}.npz"
    ).stat().st_size <= running.COMMIT_LIMIT


@pytest.mark.slow  # digests of arrays, figure and style say the same of figures that were drawn
@pytest.mark.parametrize("name", gallery.names(ROOT))
def test_every_figure_draws_its_committed_numbers_from_its_recorded_arrays(name):
    arrays = runs.load_arrays(gallery.recording(ROOT, name))
    module = load(ROOT / "paper_figures" / f"{gallery.stem(name)}.py")
    pages, numbers = {"": "draw", "2.": "draw_2"}, 0
    for page, function in pages.items():
        if not hasattr(module, function):
            continue
        with drawing.in_house_style():
            figure = getattr(module, function)(arrays)
        # To be read at the width of a page.
        assert figure.get_figwidth() <= 7.2
        assert sum(axes.get_title(loc="left")[1:3] == "  " for axes in figure.axes) <= 9
        written = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
        assert min(text.get_fontsize() for text in written) >= 6
        committed = (ROOT / "paper_figures" / "drawn" / f"{name}.{page}csv").read_text()
        header, *rows = csv.reader(io.StringIO(committed))
        assert tuple(header) == gallery.COLUMNS
        assert len(rows) == len(figure.drawn)
        numbers += len(rows)
        for row, drawn in zip(rows, figure.drawn):
            assert row[:2] == list(drawn[:2])
            assert [number(x) for x in row[2:]] == pytest.approx(
                [number(x) for x in drawn[2:]], rel=1e-4, nan_ok=True
            )
    assert numbers > 20


def number(cell):
    text = str(cell)
    try:
        return float(text or "nan")
    except ValueError:  # the name of a bar
        return float(sum(map(ord, text)))


def test_an_unchanged_figure_is_unchanged_bytes_of_every_format(here):
    paths = gallery.draw(ROOT, "width", folder=here / "a")
    png, pdf, _ = first = [path.read_bytes() for path in paths]
    assert png.startswith(b"\x89PNG")
    assert len(png) > 20_000
    assert pdf.startswith(b"%PDF")
    assert first == [path.read_bytes() for path in gallery.draw(ROOT, "width", folder=here / "b")]


def test_recorded_verdicts_are_printed_without_a_run(capsys):
    cli.main(["claims"])
    said = capsys.readouterr().out
    assert "True labels are more coherent than random ones" in said
    assert "the papers' claims: " in said


def test_help_comes_at_once():
    code = """
import sys
from coherence.lab.cli import main
for words in (["--help"], ["show", "--help"], ["completion", "bash"]):
    try:
        main(words)
    except SystemExit as stop:
        assert not stop.code, words
    heavy = {"numpy", "jax", "matplotlib", "scipy", "tyro", "sklearn", "coherence.lab.experiment"}
    assert not heavy & set(sys.modules), (words, heavy & set(sys.modules))
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_a_reader_that_has_enough_ends_it_quietly(here):
    recorded.run(here / "run" / "seed=0")
    command = [sys.executable, "-m", "coherence.lab", "show", str(here / "run")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as show:
        show.stdout.close()
        assert show.stderr.read() == b""
        assert show.wait() == 141


def test_flags_that_would_do_nothing_are_refused(capsys, here):
    recorded.run(here / "run" / "seed=0", probes=False)
    run = str(here / "run")
    assert "not allowed with argument" in fails(capsys, "show", run, "--json", "--latex")
    said = fails(capsys, "report", run, "--quantity", "train_loss")
    assert "are of one figure: name its file, such as --figure curves.pdf" in said


def test_a_closed_output_is_no_mistake(here, monkeypatch):
    recorded.run(here / "run" / "seed=0", probes=False)
    monkeypatch.setattr(sys, "stdout", None)
    cli.main(["show", str(here / "run"), "--csv", str(here / "long.csv")])
    assert (here / "long.csv").exists()


def test_a_terminal_without_our_characters_gets_the_others(here):
    for seed in range(2):
        recorded.run(here / "run" / f"seed={seed}", seed, probes=False)
    command = [sys.executable, "-m", "coherence.lab", "compare", *[str(here / "run")] * 2]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
    assert b"mean ? half of the 95 % interval" in done.stdout


def test_what_was_recorded_cannot_steer_the_terminal(capsys, here):
    with runs.Run.open(here / "seed=0", {"data": "\x1b[2J"}, seed=0) as run:
        run.append({"step": 0, "\x1b]0;title\x07": 1.0})
    cli.main(["show", str(here)])
    assert not set(capsys.readouterr().out) & {"\x1b", "\x07"}


def test_verdicts_need_no_statistics_package():
    code = """
import sys
from coherence.lab.cli import main
for command in ("list", "claims"):
    main([command])
    assert not {"scipy.stats", "matplotlib", "jax"} & set(sys.modules), command
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_a_file_that_is_no_experiment_is_named(tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "helpers.py").write_text('"""Of my own."""\n')
    with pytest.raises(
        ValueError,
        match=r"experiments/helpers.py is no experiment, it lacks PRESETS, arms, record",
    ):
        findings.experiments(tmp_path)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["report", "RUN", "--output", "FOLDER/page.html"], "page.html"),
        (["show", "RUN", "--csv", "FOLDER/long.csv"], "long.csv"),
        (["compare", "RUN", "RUN", "--csv", "FOLDER/compared.csv"], "compared.csv"),
    ],
)
def test_a_full_disk_leaves_what_was_there_and_names_the_file(
    capsys, here, monkeypatch, words, name
):
    recorded.run(here / "run" / "seed=0", probes=False)
    target = here / "out" / name
    target.parent.mkdir()
    target.write_text("before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    places = {"RUN": str(here / "run"), "FOLDER": str(target.parent)}
    for key, place in places.items():
        words = [word.replace(key, place) for word in words]
    assert f"cannot write {target} (No space left on device)" in fails(capsys, *words)
    assert [path.name for path in target.parent.iterdir()] == [name]
    assert target.read_text() == "before"


def prints_json(capsys, *words):
    cli.main([*words, "--json"])
    return json.loads(capsys.readouterr().out, parse_constant=pytest.fail)  # no NaN in it


def test_json_for_scripts(capsys, here):
    listed = {row["name"]: row for row in prints_json(capsys, "list")}
    assert listed["toy"]["summary"] == collect(load(ROOT / "experiments" / "toy.py")).summary
    smoke, cpu, *_ = listed["winsorization"]["presets"]
    assert (smoke["name"], cpu["name"]) == ("smoke", "cpu")
    assert smoke["seconds"] > 0
    assert smoke["machine"] == "2 CPUs, Linux x86_64"
    assert "reproduced" in cpu["verdicts"]
    status = prints_json(capsys, "status", "toy")
    assert status["counts"]["waiting"] == len(status["runs"]) > 0
    assert {"arm", "seed", "state", "path", "step", "steps", "error"} < set(status["runs"][0])
    recorded.run(here / "a" / "seed=0", 0)
    recorded.run(here / "b" / "seed=0", 0, noise=0.0, diverges_at=60)
    [shown] = prints_json(capsys, "show", str(here / "b"))["runs"]
    assert (shown["seed"], shown["done"], shown["diverged"]) == (0, True, 60)
    assert shown["settings"]["noise"]["fraction"] == 0.0
    assert shown["last"]["train_loss"] == {"step": 280, "value": None}  # nan is null
    compared = prints_json(capsys, "compare", str(here / "a"), str(here / "b"))
    assert compared["settings"] == [{"setting": "noise.fraction", "a": "0.5", "b": "0.0"}]
    [row] = [row for row in compared["rows"] if row["quantity"] == "test/m_coherence"]
    assert row["b"] is None
    assert row["a"] == pytest.approx(0.98, abs=0.01)
    assert prints_json(capsys, "claims")["verdicts"]


def test_the_script_of_a_shell_asks_for_names(capsys):
    cli.main(["completion", "bash"])
    script = capsys.readouterr().out
    for function in ("experiments", "figures", "presets", "runs"):
        assert f"_COMPGEN=_coherence_{function}" in script
    cli.main(["complete", "experiments"])
    assert "winsorization" in capsys.readouterr().out.split()
    cli.main(["complete", "presets", "--", "run", "real_vs_random", "--preset"])
    assert capsys.readouterr().out.split()[:2] == ["demo", "smoke"]
    cli.main(["complete", "presets", "--", "run", "--preset"])  # of what, is not known yet
    assert capsys.readouterr().out.split() == []


def completed(here, *words):
    """What bash offers for the last of some words."""
    (here / "bin").mkdir(exist_ok=True)
    command = here / "bin" / "coherence"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m coherence.lab "$@"\n')
    command.chmod(0o755)
    line = " ".join(f"'{word}'" for word in ("coherence", *words))
    code = f"""
source <(coherence completion bash)
COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_shtab_coherence; printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    path = f"{here / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_experiments_presets_and_runs(here):
    (here / "runs" / "toy").mkdir(parents=True)
    assert completed(here, "run", "wins") == ["winsorization"]
    assert completed(here, "run", "real_vs_random", "--preset", "c") == ["cpu", "cnn"]
    assert completed(here, "show", "to") == [f"{here}/runs/toy"]


def test_exit_statuses_are_those_of_the_page(capsys, here, monkeypatch):
    page = (ROOT / "docs" / "looking.md").read_text()
    statuses = {int(status) for status in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    assert statuses == {0, 1, 2, 130, 141, 143}
    cli.main(["complete", "experiments"])  # returns, which is 0
    fails(capsys, "show", "nowhere")  # 2
    for error, status in ((KeyboardInterrupt, 130), (BrokenPipeError, 141)):

        def act(parsed, error=error):
            raise error

        monkeypatch.setattr(commands, "list_experiments", act)
        before = signal.getsignal(signal.SIGINT)
        monkeypatch.setattr(os, "dup2", lambda *_: None)
        monkeypatch.setattr(sys.stdout, "fileno", lambda: 1, raising=False)
        with pytest.raises(SystemExit) as stop:
            cli.main(["list"])
        signal.signal(signal.SIGINT, before)
        assert stop.value.code == status
    monkeypatch.setattr(commands, "list_experiments", lambda parsed: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # a traceback, with which Python ends with 1
        cli.main(["list"])
