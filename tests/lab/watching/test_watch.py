"""Watching runs: what is read of files that grow, what the server answers, what the page is."""

import json
import math
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from coherence.lab import cli, runs
from coherence.lab.runs import Run
from coherence.lab.watching import Tail, Watcher, serve, tail, watcher, write_page
from coherence.lab.watching.page import page_text
from tests.lab.report import recorded

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(watcher, "PATIENCE", 0.0)


def append(path, *records):
    with open(path, "a") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def test_each_byte_is_read_once_and_a_torn_line_when_it_is_whole(tmp_path):
    path = tmp_path / "metrics.jsonl"
    follower = Tail(path)
    assert not follower.read()  # not there yet
    append(path, {"step": 0, "loss": 1.0})
    with open(path, "a") as file:
        file.write('{"step": 1, "lo')
    assert follower.read()
    assert not follower.read()
    assert follower.rows() == [(0, {"loss": 1.0})]
    with open(path, "a") as file:
        file.write('ss": NaN}\n')
    assert follower.read()
    assert [step for step, _ in follower.rows()] == [0, 1]
    assert math.isnan(follower.rows()[1][1]["loss"])
    assert (follower.count, follower.damaged) == (2, 0)


def test_a_resumed_runs_file_is_read_from_its_beginning(tmp_path):
    with Run.open(tmp_path, {}, seed=0) as run:
        for step in range(5):
            run.append({"step": step, "loss": 1.0})
        follower = Tail(tmp_path / "metrics.jsonl")
        follower.read()
        run.truncate(1)
        for step in range(2, 9):
            run.append({"step": step, "loss": 2.0})
        assert follower.read()
    assert [values["loss"] for _, values in follower.rows()] == [1.0] * 2 + [2.0] * 7


def test_a_long_file_is_thinned_evenly_kind_by_kind(tmp_path):
    path, often = tmp_path / "metrics.jsonl", [{"step": i, "loss": i / 10} for i in range(1003)]
    rare = [{"step": i, "train/alpha": 0.5, "by_layer": {"a": 1.0, "b": i}} for i in (0, 300, 700)]
    append(path, *sorted([*often, *rare], key=lambda record: record["step"]))
    follower = Tail(path, most=50)
    follower.read()
    steps = [step for step, values in follower.rows() if "loss" in values]
    assert follower.stride == 16
    assert steps == [*range(0, 1003, 16), 1002]
    assert [row for row in follower.rows() if "loss" not in row[1]] == [
        (i, {"train/alpha": 0.5, "by_layer": (("a", "b"), tail.array("d", [1.0, i]))})
        for i in (0, 300, 700)
    ]


def test_pieces_give_what_the_whole_gives(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    append(
        path, *[{"step": i, "loss": 1.0} | ({"alpha": 0.1} if i % 7 else {}) for i in range(500)]
    )
    whole = Tail(path, most=20)
    whole.read()
    monkeypatch.setattr(tail, "_BLOCK", 100)
    pieces = Tail(path, most=20)
    pieces.read()
    assert pieces.rows() == whole.rows()
    assert pieces.count == whole.count == 500


def test_what_is_no_record_is_counted_and_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('not json\n[1]\n{"loss": 1}\n{"step": "a"}\n{"step": 3, "loss": 1.5}\n')
    follower = Tail(path)
    follower.read()
    assert follower.rows() == [(3, {"loss": 1.5})]
    assert (follower.count, follower.damaged) == (5, 4)


def test_values_for_each_example_are_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    append(path, {"step": 0, "each": [0.5] * 500, "matrix": [[1.0]], "text": "a", "none": None})
    follower = Tail(path)
    follower.read()
    assert follower.rows() == [(0, {})]


def test_the_state_holds_every_kind_of_panel(tmp_path):
    for seed in range(2):
        recorded.run(tmp_path / f"seed={seed}", seed, learning_rate=0.1 * (1 + seed))
    state = Watcher([tmp_path]).state()
    assert [(run["name"], run["state"], run["step"]) for run in state["runs"]] == [
        ("seed=0", "done", 280),
        ("seed=1", "done", 280),
    ]
    assert state["runs"][1]["settings"] == {"learning_rate": "0.2"}
    by_name = {(panel["name"], panel.get("run")): panel for panel in state["panels"]}
    loss = by_name["train_loss", None]
    assert [curve["run"] for curve in loss["curves"]] == [0, 1]
    records = Run.read(tmp_path / "seed=1").records()
    assert loss["curves"][1]["x"] == [record["step"] for record in records]
    assert loss["curves"][1]["y"] == pytest.approx([r["train_loss"] for r in records], rel=1e-4)
    layers = by_name["train/m_coherence_by_layer", 1]
    assert layers["parts"] == list(recorded.LAYERS)
    assert len(layers["values"]) == 4
    assert len(layers["values"][0]) == len(layers["x"]) == 7
    groups = by_name["train/m_coherence_by_group", 0]
    assert [curve["label"] for curve in groups["curves"]] == ["pristine", "corrupt"]
    assert state["panels"][0]["name"] == "train_loss"  # what a reader looks for first


def test_groups_have_the_names_that_are_said_when_training_begins(tmp_path):
    name = "train/m_coherence_by_group"
    with Run.open(tmp_path, {}, seed=0) as run:
        early = Watcher([tmp_path])
        assert early.state()["panels"] == []
        run.save("examples-train", group_names=["pristine", "corrupt"])
        run.annotate(axes={name: ["group"]})
        run.append({"step": 0, name: [1.0, 2.0]})
        (panel,) = [panel for panel in early.state()["panels"] if panel["name"] == name]
    assert [curve["label"] for curve in panel["curves"]] == ["pristine", "corrupt"]


def test_histograms_are_drawn_on_one_axis(tmp_path):
    counts, zero = [0.0] * 15 + [8.0] + [0.0] * 15, [0.0] * 31
    with Run.open(tmp_path, {}, seed=0) as run:
        for step, limit, row in ((0, 1.0, counts), (1, 0.1, counts), (2, 0.0, zero)):
            record = {"g_histogram_counts": {"a": row}, "g_histogram_limit": {"a": limit}}
            run.append({"step": step, **record})
    [panel] = Watcher([tmp_path]).state()["panels"]
    assert (panel["kind"], panel["x"]) == ("histograms", [0, 1, 2])
    [layer] = panel["layers"]
    assert (layer["layer"], layer["limit"]) == ("a", 1.0)
    wide, narrow, nothing = zip(*layer["values"])
    middle = watcher.AXIS // 2
    assert sum(wide) == pytest.approx(1, abs=1e-3)
    assert 0 < wide[middle] < 1
    assert narrow[middle] == 1  # a bin of a tenth of the width
    assert set(nothing) == {None}


def test_the_noise_scale_is_a_ratio_of_means(tmp_path):
    with Run.open(tmp_path, {}, seed=0) as run:
        for step in range(20):
            moments = {"train/noise_trace": 2.0 + step, "train/noise_squared_norm": 1.0 - step % 2}
            run.append({"step": step, **moments})
    panels = {panel["name"]: panel for panel in Watcher([tmp_path]).state()["panels"]}
    [curve] = panels["train/noise_scale"]["curves"]
    # of the last 8 readings: mean trace 2 + 15.5, mean squared norm 1 / 2
    assert curve["y"][0] == 2
    assert curve["y"][-1] == 35
    assert panels["train/noise_scale"]["label"] == "noise scale (examples)"


def test_a_long_curve_keeps_its_spikes():
    values = [0.0] * 10_000
    values[4321], values[7000] = 9.0, math.nan
    curve = watcher._curve(range(10_000), values)
    assert len(curve["x"]) <= watcher.POINTS + 2
    assert (4321, 9.0) in list(zip(curve["x"], curve["y"]))
    assert (curve["x"][0], curve["x"][-1]) == (0, 9999)


def test_only_what_is_new_makes_a_new_version(tmp_path):
    with Run.open(tmp_path, {"steps": 9}, seed=0) as run:
        watched = Watcher([tmp_path])
        first = watched.state()
        assert first["runs"][0]["records"] == 0
        assert first["runs"][0]["state"] == "running"
        assert first["panels"] == []
        assert watched.state(first["version"]) is None
        run.append({"step": 4, "loss": math.inf})
        second = watched.state(first["version"])
        assert second["version"] == first["version"] + 1
        assert second["panels"][0]["curves"] == [{"run": 0, "x": [4], "y": [None]}]
        run.finish()
    assert watched.done
    assert watched.state(second["version"])["runs"][0]["state"] == "done"


def test_what_takes_long_is_looked_at_less_often(tmp_path, monkeypatch):
    recorded.run(tmp_path / "seed=0", probes=False)
    monkeypatch.setattr(watcher, "PATIENCE", 1.0)
    clock = {"monotonic": 0.0, "thread_time": 0.0}
    for name in clock:
        monkeypatch.setattr(watcher.time, name, lambda name=name: clock[name])
    looks = []

    def look(now):
        looks.append(now)
        watched._looked, clock["thread_time"] = now, clock["thread_time"] + 0.1

    watched = Watcher([tmp_path])
    monkeypatch.setattr(watched, "_look", look)
    for second in range(12):
        clock["monotonic"] = float(second)
        watched.state()
    assert looks == [0, 5, 10]  # a fiftieth of one core


def test_signs_of_life_say_speed_and_memory(tmp_path):
    with Run.open(tmp_path, {}, seed=0) as run:
        watched = Watcher([tmp_path])
        for step in (10, 30, 50):
            run.reach(step)
            run._lock.beat()
            lock = next(tmp_path.glob(".lock-*"))
            os.utime(lock, (step, lock.stat().st_mtime + step))  # beats are 10 seconds apart
            state = watched.state()
    curves = {panel["name"]: panel["curves"][0] for panel in state["panels"]}
    assert curves["system/steps_per_second"]["x"] == [10, 30, 50]
    if sys.platform == "linux":
        assert all(1 < megabytes < 1e5 for megabytes in curves["system/memory_mb"]["y"])


def test_runs_that_appear_later_join(tmp_path):
    recorded.run(tmp_path / "seed=0", probes=False)
    watched = Watcher([tmp_path])
    assert len(watched.state()["runs"]) == 1
    recorded.run(tmp_path / "seed=1", 1, probes=False)
    assert [run["seed"] for run in watched.state()["runs"]] == [0, 1]


@pytest.fixture
def server(tmp_path):
    recorded.run(tmp_path / "run" / "seed=0")
    with serve(Watcher([tmp_path / "run"]), port=0) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{served.server_address[1]}"
        served.shutdown()
        thread.join()


def get(address, **headers):
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers)) as answer:
        return answer.status, answer.headers["Content-Type"], answer.read().decode()


def test_the_server_gives_the_page_and_what_is_new(server):
    status, kind, text = get(f"{server}/")
    assert (status, kind) == (200, "text/html; charset=utf-8")
    page = text
    status, kind, text = get(f"{server}/data.json?version=")
    assert (status, kind) == (200, "application/json; charset=utf-8")
    state = json.loads(text, parse_constant=pytest.fail)
    assert state["runs"][0]["name"] == "seed=0"
    assert page == page_text(state)
    assert get(f"{server}/data.json?version={state['version']}")[0] == 204
    for path, headers, status in (("/else", {}, 404), ("/", {"Host": "elsewhere.example:80"}, 403)):
        with pytest.raises(urllib.error.HTTPError, match=str(status)):
            get(server + path, **headers)


def test_a_taken_port_is_named(server, tmp_path, capsys):
    port = server.rpartition(":")[2]
    with pytest.raises(SystemExit) as stop:
        cli.main(["watch", str(tmp_path / "run"), "--port", port])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert f"port {port} of this machine is taken. Name another with --port" in said


def test_the_page_needs_nothing_from_elsewhere_and_text_stays_text(tmp_path):
    with Run.open(tmp_path / "seed=0", {"name": "</script><b>"}, seed=0) as run:
        run.append({"step": 0, "<img src=x>": 1.0})
        run.finish()
    written = write_page(Watcher([tmp_path]), tmp_path / "page.html")
    text = written.read_text()
    for word in ("http-equiv", "<img", "</script><b>", "@import", "url(", "<link"):
        assert word not in text
    assert text.count("http") == text.count("http://www.w3.org/2000/svg") == 1  # a name
    assert "innerHTML" not in text
    start = text.index('id="data">') + len('id="data">')
    state = json.loads(text[start : text.index("</script>", start)])
    assert state["panels"][0]["name"] == "<img src=x>"


def test_the_file_is_written_until_all_runs_are_done(tmp_path, monkeypatch):
    run, pages = Run.open(tmp_path / "run", {}, seed=0), []
    target = tmp_path / "page.html"

    def sleep(seconds):
        pages.append(target.read_text())
        run.append({"step": len(pages), "loss": 1.0})
        if len(pages) == 3:
            run.finish()

    monkeypatch.setattr("time.sleep", sleep)
    write_page(Watcher([tmp_path / "run"]), target, every=7)
    assert len(pages) == 3
    assert all('<meta http-equiv="refresh" content="7">' in text for text in pages)
    assert len(set(pages)) == 3
    assert "http-equiv" not in target.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere holds no run"),
        (["RUN", "--file", "nowhere/page.html"], "there is no folder nowhere to write page.html"),
        (["RUN", "--port", "99999"], "port 99999 of this machine cannot be used"),
        (["RUN", "--where", "seed=9"], "no run has this value"),
    ],
)
def test_mistakes_name_the_way_out(tmp_path, capsys, words, message):
    recorded.run(tmp_path / "seed=0", probes=False)
    with pytest.raises(SystemExit) as stop:
        cli.main(["watch", *[str(tmp_path) if word == "RUN" else word for word in words]])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_long_run_is_shown_at_once_in_little_memory_and_without_jax(tmp_path):
    with Run.open(tmp_path, {}, seed=0):
        pass
    by_layer = {f"layer_{i}": 0.125 for i in range(4)}
    lines = [
        json.dumps(
            {"step": i, "loss": 2.5 / (1 + i), "norm": 0.1} | ({"n": by_layer} if i % 9 else {})
        )
        for i in range(100_000)
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    code = f"""
import re, sys, time
from coherence.lab.watching import Watcher
start = time.process_time()
state = Watcher([{str(tmp_path)!r}]).state()
linux = sys.platform == "linux"
peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read()) if linux else "00"
print(time.process_time() - start, int(peak[1]) / 1024)
assert state["runs"][0]["records"] == 100_000
assert state["panels"][0]["curves"][0]["x"][-1] == 99_999
assert not {{"jax", "matplotlib"}} & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    seconds, megabytes = map(float, done.stdout.split())
    assert seconds < 2
    assert megabytes < 100


def test_many_runs_are_said_to_be_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(watcher, "MOST_RUNS", 2)
    for seed in range(3):
        with Run.open(tmp_path / f"seed={seed}", {}, seed=seed):
            pass
    state = Watcher([tmp_path]).state()
    assert len(state["runs"]) == 2
    assert state["left_out"] == 1


def test_a_run_that_cannot_be_read_is_named_and_the_others_are_shown(tmp_path):
    for seed in range(2):
        recorded.run(tmp_path / f"seed={seed}", seed, probes=False)
    (tmp_path / "seed=1" / "config.json").write_text("{")
    state = Watcher([tmp_path]).state()
    assert [run["seed"] for run in state["runs"]] == [0]
    assert "config.json is damaged" in state["failed"][0]
    assert runs.find(tmp_path, failed=[])
