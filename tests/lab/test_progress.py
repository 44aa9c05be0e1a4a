"""Progress in a log file is whole lines, few of them; in a terminal and a notebook a bar."""

import io
import sys
import types

import pytest

from coherence.lab import progress
from coherence.lab.progress import Lines


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_a_log_file_gets_a_line_at_each_tenth(clock, capsys):
    lines = Lines(1000, clock)
    lines.set_description("toy · mean")
    for _ in range(1000):
        clock.now += 0.01
        lines.update(1)
    lines.close()
    written = capsys.readouterr().err
    assert "\r" not in written
    assert len(written.splitlines()) == 10
    first, *_, last = written.splitlines()
    assert first == "toy · mean: 100 of 1,000 steps (10 %), 100 steps/s, 10 s left"
    assert last == "toy · mean: 1,000 of 1,000 steps (100 %), 100 steps/s"


def test_between_tenths_a_log_file_gets_a_line_every_half_minute(clock, capsys):
    lines = Lines(100_000, clock)
    for _ in range(1000):
        clock.now += 1.0
        lines.update(1)
    assert len(capsys.readouterr().err.splitlines()) == 1000 // 30


def test_steps_that_were_done_before_make_one_line(clock, capsys):
    lines = Lines(100, clock)
    lines.update(0)
    lines.update(95)
    lines.update(2)
    assert capsys.readouterr().err == ": 95 of 100 steps (95 %)\n"


def test_it_suits_where_it_is_shown(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert type(progress.meter(3)) is Lines
    monkeypatch.setattr(sys, "stderr", None)  # as of a program without a console
    assert type(progress.meter(3)) is Lines
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    bar = progress.meter(3)
    bar.update(3)
    bar.close()
    assert "3.00/3.00" in terminal.getvalue()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    shell = type("ZMQInteractiveShell", (), {})()  # Jupyter's
    notebook = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    bar = progress.meter(3)
    bar.close()
    assert type(bar).__name__.startswith("tqdm")
