"""TensorBoard: what is exported, that it arrives, and what is said where the extra is missing."""

import builtins
import math

import pytest

from coherence.lab.report import export
from coherence.lab.report.events import points
from coherence.lab.runs import Run
from tests.lab.report import recorded


def test_points_are_scalars_layers_and_groups(tmp_path):
    run = recorded.run(tmp_path / "seed=0")
    last = {tag: value for tag, value, step in points(run) if step == 280}
    record = run.records()[-1]
    assert last["train_loss"] == record["train_loss"]
    assert (
        last["train/m_coherence_by_layer/output"] == record["train/m_coherence_by_layer"]["output"]
    )
    assert last["train/m_coherence_by_group/1"] == record["train/m_coherence_by_group"][1]
    assert not any("contributions" in tag or "matrix" in tag for tag in last)


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    importing = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "tensorboardX":
            raise ImportError(name)
        return importing(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    recorded.run(tmp_path / "seed=0", probes=False)
    with pytest.raises(
        RuntimeError,
        match=r'export needs the extra tensorboard, .*: pip install -e "\.\[tensorboard\]"\.',
    ):
        export([tmp_path], tmp_path / "events")


def test_every_point_arrives(tmp_path):
    pytest.importorskip("tensorboardX", reason="the extra tensorboard is not installed")
    from tensorboardX.proto.event_pb2 import Event

    run = recorded.run(tmp_path / "runs" / "seed=0", diverges_at=100)
    (folder,) = export([tmp_path / "runs"], tmp_path / "events")
    (file,) = folder.glob("events.*")
    assert folder == tmp_path / "events" / "runs" / "seed=0"
    found, data = [], file.read_bytes()
    while data:  # length, its checksum, the event, its checksum
        length = int.from_bytes(data[:8], "little")
        event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
        found += [
            (value.tag, value.simple_value, event.step)
            for value in event.summary.value
            if value.HasField("simple_value")
        ]
    expected = list(points(run))
    assert [(tag, step) for tag, _, step in found] == [(tag, step) for tag, _, step in expected]
    assert [value for _, value, _ in found] == pytest.approx(
        [value for _, value, _ in expected], rel=1e-6, nan_ok=True
    )
    assert any(math.isnan(value) for _, value, _ in found)


@pytest.mark.parametrize("setting", ["/../../../../escaped", "..", "/etc", "a/b", "./x/"])
def test_everything_is_exported_inside_the_folder(tmp_path, setting):
    pytest.importorskip("tensorboardX", reason="the extra tensorboard is not installed")
    for seed, data in enumerate((setting, "plain")):
        with Run.open(tmp_path / "runs" / f"seed={seed}", {"data": data}, seed=seed) as run:
            run.append({"step": 0, "x": 1.0})
    folders = export([tmp_path / "runs"], tmp_path / "deep" / "down" / "events")
    inside = (tmp_path / "deep" / "down" / "events").resolve()
    assert len(set(folders)) == 2
    assert all(folder.resolve().is_relative_to(inside) for folder in folders)
    assert all(any(folder.glob("events.*")) for folder in folders)


def test_nothing_is_exported_twice(tmp_path):
    pytest.importorskip("tensorboardX", reason="the extra tensorboard is not installed")
    recorded.run(tmp_path / "runs" / "seed=0", probes=False)
    export([tmp_path / "runs"], tmp_path / "events")
    with pytest.raises(
        FileExistsError,
        match=r"holds exported events already\. Name another folder, or delete that one\.",
    ):
        export([tmp_path / "runs"], tmp_path / "events")
