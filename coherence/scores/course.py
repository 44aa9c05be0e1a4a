"""Scores over a run: what examples did along training, accumulated from checkpoint to checkpoint.

`init`, `update`, `result` are pure functions of a tree of arrays: any loop may carry it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from .checkpoint import Scores


class Course(NamedTuple):
    """Sums over the checkpoints so far, [m] each but `checkpoints`; made by `init`."""

    checkpoints: Any
    loss: Any
    confidence: Any
    deviation: Any
    margin: Any
    correct: Any
    learned: Any
    forgotten: Any
    directed: Any
    agreement: Any
    own_class: Any
    rivals: Any
    pull: Any
    self_influence: Any


class CourseScores(NamedTuple):
    r"""Scores of m examples over a run, [m]; nan where an example never had a number.

    loss: mean over checkpoints.
    confidence, variability: mean and standard deviation of the probability of the given label (data
        maps: Swayamdipta et al., arXiv:2009.10795, Section 2). High and low: easy; low and low:
        hard or wrong; high variability: ambiguous. In [0, 1] and [0, 1/2].
    aum: the area under the margin, its mean over checkpoints (Pleiss et al., arXiv:2001.10528).
        Trap: stop before wrong labels are memorized, or their late margins hide the early ones.
    forgetting: how often it went from right to wrong (Toneva et al., arXiv:1812.05159, Algorithm
        1); inf if it was never right. The source looks at every presentation; checkpoints that are
        far apart miss events.
    agreement, own_class, rivals: means of the cosines of `Scores`, over the checkpoints where the
        example has a gradient. Low: wrong or hard labels. Each checkpoint counts alike, however
        short gradients have become.
    pull: sum over checkpoints of rate x `Scores.pull`: the fall of its loss that steps on the
        *other* examples brought, to first order, in units of the loss. Its own gradient is not in
        it, so memorizing does not make up for what the others did against it. Ours.
    self_influence: sum of rate x squared gradient norm: TracIn of an example on itself (Pruthi et
        al., arXiv:2002.08484, Section 3). High: what is learned from itself alone, rare or wrong.
    """

    loss: Any
    confidence: Any
    variability: Any
    aum: Any
    forgetting: Any
    agreement: Any
    own_class: Any
    rivals: Any
    pull: Any
    self_influence: Any


def init(m: int) -> Course:
    """The sums before the first checkpoint, of m examples.

    Raises:
        ValueError: no example.

    >>> init(2).forgotten.shape
    (2,)
    """
    if m < 1:
        raise ValueError(f"init(m): at least 1 example, got {m}.")
    zeros = jnp.zeros(m)
    return Course(jnp.zeros(()), *[zeros] * 13)


def update(course: Course, scores: Scores, rate: float = 1.0) -> Course:
    """The sums with one more checkpoint.

    Args:
        scores: at this checkpoint, of the same examples.
        rate: the learning rate this checkpoint stands for (`Trajectory.rates`); weighs `pull` and
            `self_influence`, and nothing else.

    Raises:
        ValueError: scores of another number of examples.
    """
    m = course.loss.shape[0]
    if jnp.shape(scores.loss) != (m,):
        raise ValueError(
            f"update: the course is of {m} examples, scores are of {list(jnp.shape(scores.loss))}."
        )
    checkpoints = course.checkpoints + 1
    correct = jnp.asarray(scores.correct)
    right = correct > 0
    confidence = jnp.asarray(scores.confidence)
    before = course.confidence / jnp.maximum(course.checkpoints, 1)
    total = course.confidence + confidence
    deviation = course.deviation + (confidence - before) * (confidence - total / checkpoints)
    directed = jnp.isfinite(jnp.asarray(scores.agreement))
    summed = lambda sums, values: sums + jnp.where(directed, jnp.asarray(values), 0)
    return Course(
        checkpoints=checkpoints,
        loss=course.loss + scores.loss,
        confidence=total,
        deviation=deviation,
        margin=course.margin + scores.margin,
        correct=correct,
        learned=jnp.maximum(course.learned, jnp.where(right, 1, 0 * correct)),
        forgotten=course.forgotten + jnp.where((course.correct > 0) & (correct == 0), 1, 0),
        directed=course.directed + directed,
        agreement=summed(course.agreement, scores.agreement),
        own_class=summed(course.own_class, scores.own_class),
        rivals=summed(course.rivals, scores.rivals),
        pull=course.pull + rate * jnp.asarray(scores.pull),
        self_influence=course.self_influence + rate * jnp.square(jnp.asarray(scores.grand)),
    )


def result(course: Course) -> CourseScores:
    """The scores after the last checkpoint.

    >>> from coherence.scores import Scores
    >>> at = lambda right: Scores(*[jnp.array([0.5])] * 4, jnp.array([right]), *[jnp.ones(1)] * 8)
    >>> course = init(1)
    >>> for right in (0.0, 1.0, 0.0, 1.0):
    ...     course = update(course, at(right))
    >>> result(course).forgetting
    Array([1.], dtype=float32)
    """
    count, directed = course.checkpoints, jnp.where(course.directed > 0, course.directed, jnp.nan)
    forgetting = jnp.where(course.learned > 0, course.forgotten, jnp.inf)
    return CourseScores(
        loss=course.loss / count,
        confidence=course.confidence / count,
        variability=jnp.sqrt(jnp.maximum(course.deviation / count, 0)),
        aum=course.margin / count,
        forgetting=jnp.where(jnp.isnan(course.learned), jnp.nan, forgetting),
        agreement=course.agreement / directed,
        own_class=course.own_class / directed,
        rivals=course.rivals / directed,
        pull=course.pull,
        self_influence=course.self_influence,
    )
