"""When, where and how far: what a run's folder says besides settings and numbers."""

from __future__ import annotations

import json
from datetime import datetime

from coherence.lab.runs import Run

from .records import diverged


def state(run: Run, records: list[dict]) -> str:
    """`done`, or `unfinished, checkpoints at 200, 100`; and from which step the loss is no number."""
    checkpoints = ", ".join(map(str, run.checkpoints()))
    words = (
        "done"
        if run.done
        else f"unfinished, checkpoints at {checkpoints}"
        if checkpoints
        else "unfinished, no checkpoint"
    )
    lost = diverged(records)
    return (
        words if lost is None else f"{words}, diverged: a loss is nan or infinite from step {lost}"
    )


def duration(run: Run) -> str | None:
    """From the first start to the end, as `1 min 20 s`; None for a run that has not ended. Pauses before a resume are in it."""
    if not run.done:
        return None
    began, ended = (
        run.manifest.get("created"),
        json.loads((run.path / "DONE").read_bytes()).get("finished"),
    )
    if not began or not ended:
        return None
    resumed = len(run.manifest.get("resumed", []))
    took = _span((datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds())
    return took + (f", resumed {resumed} time{'s' * (resumed > 1)}" if resumed else "")


def device(run: Run) -> str:
    """What it was computed on, as far as it was noted."""
    host = run.manifest.get("host", {})
    return str(run.manifest.get("device") or host.get("system", "unknown device"))


def _span(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours} h {minutes} min"
    return (
        f"{minutes} min {rest} s" if minutes else "less than a second" if whole < 1 else f"{rest} s"
    )
