"""When to measure."""

import numpy as np
import pytest

from coherence.probes import AtLoss, Epochs, Every, LogSpaced
from coherence.probes.schedules import Watch


def test_every_schedule_begins_at_zero_and_ends_at_the_last_step():
    for when in (Every(30), LogSpaced(3), Epochs(0.5), AtLoss()):
        steps = when.steps(100, per_epoch=20)
        assert steps[0] == 0
        assert steps[-1] == 100
        assert list(steps) == sorted(set(steps))


def test_linear_logarithmic_and_by_epoch():
    assert Every(30).steps(100) == (0, 30, 60, 90, 100)
    assert LogSpaced(2).steps(100) == (0, 1, 3, 10, 32, 100)
    assert Epochs(2).steps(100, per_epoch=20) == (0, 40, 80, 100)
    assert Epochs(0.5).steps(40, per_epoch=20) == (0, 10, 20, 30, 40)
    assert LogSpaced(2).steps(1) == (0, 1)
    assert LogSpaced(2).steps(0) == (0,)


def test_at_a_loss_level_once_and_only_when_a_whole_window_is_there():
    when = AtLoss((0.5, 0.25), window=4)
    losses = np.concatenate([np.full(8, 1.0), np.full(4, 0.4), np.full(4, 0.6), np.full(4, 0.1)])
    assert [n for n in range(len(losses) + 1) if when.due(losses[:n])] == [12, 20]
    assert when.crossed(losses[:12]) == 1
    assert when.crossed(losses) == 2
    assert AtLoss((0.5,), window=1).crossed([1.0, np.nan, 0.4]) == 1


def test_a_level_that_is_met_exactly_is_reached():
    when = AtLoss((0.5, 0.25), window=2)
    losses = [2.0, 2.0, 1.25, 0.75, 1.0, 1.0, 0.5, 0.5]  # 1 and 0.5 are half and a quarter
    assert [when.crossed(losses[:n]) for n in (2, 4, 6, 8)] == [0, 1, 1, 2]
    assert [n for n in range(9) if when.due(losses[:n])] == [4, 8]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Every(0), r"Every\(steps_apart\): a whole number of steps, at least 1, got 0"),
        (lambda: Every(2.5), r"Every\(steps_apart\): a whole number of steps, at least 1, got 2.5"),
        (
            lambda: LogSpaced(0),
            r"LogSpaced\(per_decade\): at least 1 measurement a decade, got 0",
        ),
        (lambda: Epochs(0), r"Epochs\(apart\): a positive number of epochs, got 0"),
        (
            lambda: Epochs().steps(10),
            r"Epochs need the number of steps in one, per_epoch = examples // batch_size",
        ),
        (lambda: Epochs().steps(10, 0), r"Epochs\(per_epoch\): at least 1 step in an epoch, got 0"),
        (lambda: AtLoss(0.5), r"AtLoss\(levels\): a tuple of shares, as \(0.5, 0.25\), got 0.5"),
        (
            lambda: AtLoss((1.5,)),
            r"AtLoss\(levels\): shares of the initial loss, between 0 and 1, got \(1.5,\)",
        ),
        (lambda: AtLoss(window=0), r"AtLoss\(window\): at least 1 step, got 0"),
    ],
)
def test_bad_schedules_are_named(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


@pytest.mark.parametrize("window", [1, 3])
def test_watching_losses_as_they_grow_is_asking_about_all_of_them(window):
    when, rng = AtLoss((0.9, 0.5, 0.2), window=window), np.random.default_rng(0)
    for kind in range(4):
        losses = np.exp(-np.arange(60) / 20 + 0.5 * rng.normal(size=60)).astype(np.float32)
        losses[:: 7 if kind % 2 else 61] = np.inf if kind == 3 else np.nan
        watch = Watch(when)
        for n in range(60):
            crossed = when.crossed(losses[:n]) > when.crossed(losses[: max(n - window, 0)])
            assert when.due(losses[:n]) == watch.due(losses[:n]) == (n % window == 0 and crossed)
        assert watch.due(losses[:0]) == watch.due(losses[:1]) is False or window == 1
        late = Watch(when)  # as of a resumed run
        assert late.due(losses[:30]) == when.due(losses[:30])


class Counted(list):
    """Losses that say how many of them were looked at."""

    looked = 0

    def __getitem__(self, index):
        if isinstance(index, slice):
            Counted.looked += len(range(*index.indices(len(self))))
        return super().__getitem__(index)


@pytest.mark.parametrize("steps", [5_000, 20_000, 80_000])
def test_watching_looks_at_each_loss_once_or_twice(steps):
    watch, losses = Watch(AtLoss((0.5,), window=10)), Counted()
    Counted.looked = 0
    for i in range(steps):
        losses.append(1.0 / (1 + i))
        watch.due(losses)
    assert Counted.looked <= 2 * steps
