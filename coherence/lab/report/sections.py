"""Sections of the page: what was recorded over training, in parts, and which examples stand out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from . import curves, examples, html, maps, pictures
from .grouping import Arm
from .records import diverged, split
from .wording import heading

_MOST_PANELS, _MOST_ARMS = 8, 8  # of one figure: what fits on a printed page
_BAND = (
    "Mean over seeds with its 95 % interval, on logarithmic axes the geometric mean; an interval far wider than the data is cut at the "
    "panel's edge."
)


def training(found: Sequence[Arm]) -> Iterator[str]:
    """Curves of the scalars: first those of the whole run, then a figure a probe."""
    scalars = names(found, "scalar")
    for probe in dict.fromkeys(split(name)[0] for name in scalars):
        some = [name for name in scalars if split(name)[0] == probe]
        yield html.heading(f"Probe {probe}" if probe else "Over training")
        for start in range(0, len(some), _MOST_PANELS):
            panels = some[start : start + _MOST_PANELS]
            yield html.picture(curves.over_training(found, panels), _caption(found, panels))


def _caption(found: Sequence[Arm], drawn: Sequence[str]) -> str:
    """What curves mean: of the seeds, and of m-coherence."""
    several = any(len(arm.runs) > 1 for arm in found)
    said = [_BAND if several else "One seed: no band."]
    if several and any(
        len({len(h) for h in arm.histories}) > 1
        or any(diverged(h) is not None for h in arm.histories)
        for arm in found
    ):
        said.append(
            "Where a seed was not measured or has no number there is no mean: the thin lines are the seeds that have one."
        )
    if any(split(name)[1].startswith("m_coherence") for name in drawn):
        said.append(
            "m-coherence: how many examples of the sample an average example's gradient helps; 1 if they are orthogonal, m if equal."
        )
    return " ".join(said)


def layers_and_groups(found: Sequence[Arm]) -> Iterator[str]:
    """A heat map, curves or matrices for every quantity that has parts."""
    seeds = "Mean over seeds. " if any(len(arm.runs) > 1 for arm in found) else ""
    for kind, where, draw in (
        ("layers", "Over layers", maps.by_layer),
        ("groups", "Over training", curves.by_group),
        ("matrix", "As a matrix", maps.between_groups),
    ):
        for name in names(found, kind):
            captions = {
                "layers": f"{seeds}The first layer is on top. Grey: no number.",
                "groups": _caption(found, [name]),
                "matrix": f"At the last step that has it. {seeds}Grey: no number.",
            }
            having = [arm for arm in found if name in arm.quantities(kind)]
            yield html.heading(f"{where}: {heading(name)}")
            for start in range(0, len(having), _MOST_ARMS):
                yield html.picture(
                    draw(having[start : start + _MOST_ARMS], name, having), captions[kind]
                )


def names(found: Sequence[Arm], *kinds: str) -> list[str]:
    """What any of the arms recorded, of some kinds."""
    return list(dict.fromkeys(name for arm in found for name in arm.quantities(*kinds)))


def ends(found: Sequence[Arm]) -> Iterator[str]:
    """Pictures of the extremes of one seed an arm, or their numbers where there are no pictures."""
    blocks = [
        block
        for arm in found
        for probe in examples.probes(arm.quantities("examples"))
        for block in _probe_examples(arm, probe)
    ]
    if blocks:
        yield html.heading("Most and least coherent examples")
        yield html.paragraph(
            "By their part of the squared norm of the mean gradient, in average examples. 1x: as much as the average one; far more: one of "
            "those that drive the step; 0: orthogonal to it; negative: the step is made against it."
        )
        yield from blocks


def _probe_examples(arm: Arm, probe: str) -> Iterator[str]:
    for run, records in zip(arm.runs, arm.histories):
        if ranked := examples.rankings(records, probe):
            kept = examples.sample(run, probe)
            for ranking in examples.early_and_last(ranked):
                yield _shown(
                    ranking,
                    kept,
                    f"{arm.name}, seed {run.seed}, {f'probe {probe}, ' if probe else ''}step {ranking.step}",
                )
            return


def _shown(ranking: examples.Ranking, kept: dict, where: str) -> str:
    caption = f"{where}, of {len(ranking.contributions)} examples"
    if drawn := pictures.ends(ranking, kept):
        framed = any(examples.is_corrupt(kept, i) for i in range(len(ranking.contributions)))
        return html.picture(drawn, caption + "; corrupt examples have a thick frame" * framed + ".")
    return _numbers(ranking, kept, f"{caption}.")


def _numbers(ranking: examples.Ranking, kept: dict, caption: str) -> str:
    rows = []
    for title, indices in zip(("most coherent", "least coherent"), ranking.ends(pictures.SHOWN)):
        rows += [
            [title, str(examples.place(kept, i)), examples.caption(kept, i) or "-", ranking.said(i)]
            for i in indices.tolist()
        ]
    return html.paragraph(caption) + html.table(
        ["", "example", "what it is", "part of the step"], rows
    )
