"""Programs are compiled once for equal settings and shapes, and kept in a bounded cache."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coherence.lab.estimators import ConditionalVAEClassifier, MLPClassifier
from coherence.lab.runs import Run
from coherence.lab.settings import (
    MLP,
    Probing,
    adagrad,
    adam,
    average,
    l1_decay,
    l2_decay,
    label_noise,
    median_of_means,
    rmsprop,
    sgd,
    soft_threshold,
    winsorize,
)
from coherence.lab.training import Classification, train
from coherence.lab.training.checkpoints import from_arrays, to_arrays
from coherence.lab.training.programs import PROGRAMS, Programs
from coherence.lab.training.run_settings import transformation
from coherence.lab.training.step import initial_state, make_advance, make_step, snapshots
from coherence.optim import chain
from tests import zoo

TRACED, COMPILED = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/backend_compile_duration",
)


@pytest.fixture
def events():
    """The names of what JAX does while compiling, as it happens."""
    names = []
    listener = lambda name, seconds, **_: names.append(name)
    jax.monitoring.register_event_duration_secs_listener(listener)
    yield names
    jax.monitoring.unregister_event_duration_listener(listener)


def test_equal_values_get_what_was_made_once():
    programs, made = Programs(), []

    def make(*values):
        made.append(values)
        return object()

    first = programs.get(make, sgd(0.1), 3)
    assert programs.get(make, sgd(0.1), 3) is first
    assert programs.get(make, sgd(0.2), 3) is not first
    assert programs.get(make, sgd(0.1), 3.0) is not first
    assert programs.get(lambda *values: make(*values), sgd(0.1), 3) is not first
    assert len(made) == len(programs) == 4


def test_what_has_no_hash_is_made_anew():
    programs = Programs()
    assert programs.get(list, [1, 2]) == [1, 2]
    assert programs.get(list, [1, 2]) is not programs.get(list, [1, 2])
    assert len(programs) == 0


def test_what_was_not_used_for_longest_is_dropped_first():
    programs = Programs(2)
    one, two = programs.get(Programs, 1), programs.get(Programs, 2)
    assert programs.get(Programs, 1) is one
    programs.get(Programs, 3)
    assert len(programs) == 2
    assert programs.get(Programs, 1) is one
    assert programs.get(Programs, 2) is not two
    programs.clear()
    assert programs.get(Programs, 1) is not one


def test_what_is_dropped_is_freed():
    programs = Programs()
    function = weakref.ref(programs.get(_compiled, 1))
    function()(jnp.ones(3))
    assert function() is not None
    programs.clear()
    gc.collect()
    assert function() is None


def _compiled(_):
    return jax.jit(lambda x: x + 1)


def test_a_cache_holds_something():
    with pytest.raises(ValueError, match=r"Programs\(size\): at least 1 entry, got 0"):
        Programs(0)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (MLPClassifier, {"aggregator": winsorize(20.0), "optimizer": adam(0.01)}),
        (MLPClassifier, {"aggregator": median_of_means(2, seed=0)}),
        (MLPClassifier, {"measure_coherence": 6}),
        (ConditionalVAEClassifier, {"latents": 2, "draws": 2}),
    ],
)
def test_a_second_fit_traces_and_compiles_nothing(kind, options, events):
    x, y = np.asarray(zoo.normal(0, 12, 5)), np.arange(12) % 2
    make = lambda seed: kind(width=4, steps=3, batch_size=6, random_state=seed, **options)
    first = make(0).fit(x, y).predict_proba(x)
    assert {TRACED, COMPILED} <= set(events)
    events.clear()
    second = make(1).fit(x[::-1], y)
    second.predict_proba(x)
    assert events == []
    np.testing.assert_array_equal(make(0).fit(x, y).predict_proba(x), first)


def test_arms_that_differ_in_numbers_alone_share_their_programs(tmp_path, events):
    def learn(name, **changes):
        events.clear()
        settings = Classification(
            **{
                "model": MLP(width=3, depth=1),
                "aggregator": winsorize(10.0),
                "probes": (Probing(m=20, quantities="light"),),
                "batch_size": 10,
                "steps": 3,
                **changes,
            }
        )
        with Run.open(tmp_path / name, {"batch_size": 10}, seed=len(name)) as run:
            problem = settings.build(run.seed)
            train([problem], [run], steps=3, batch_size=10, schedule=(0, 3), say=lambda _: None)
        return [name for name in events if name == COMPILED]

    assert learn("first")
    assert learn("another", noise=label_noise(0.5)) == []
    assert learn("slower", optimizer=sgd(0.01)) == []
    assert learn("pulled", decay=l2_decay(0.1))
    assert learn("pulled more", decay=l2_decay(0.2), optimizer=sgd(0.3)) == []
    assert learn("wider", model=MLP(width=4, depth=1))


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": sgd(0.3)},
        {"optimizer": sgd(0.03, momentum=0.7)},
        {"optimizer": adam(0.003, b1=0.8)},
        {"optimizer": adagrad(0.03)},
        {"optimizer": rmsprop(0.003)},
        {"aggregator": winsorize(20.0)},
        {"decay": l1_decay(0.003)},
        {"decay": l2_decay(0.03), "optimizer": sgd(0.03, momentum=0.7)},
        {"decay": soft_threshold(0.0003)},
    ],
    ids=repr,
)
def test_numbers_as_data_give_the_bits_of_constants(options):
    settings = Classification(
        model=MLP(width=6, depth=1),
        noise=label_noise(0.5),
        probes=(),
        track_batches=False,
        **options,
    )
    problem = settings.build(0)
    parts = [settings.aggregator, settings.optimizer]
    if settings.decay is not None:
        parts.insert(2 if isinstance(settings.decay, soft_threshold) else 1, settings.decay)
    constants = chain(*(part.build() for part in parts))
    assert problem.recipe.update is not constants.update
    indices = np.arange(60).reshape(6, 10)
    ends = []
    for optimizer in (problem.optimizer, constants):
        trained = problem.extended(optimizer=optimizer)
        advance = jax.jit(make_advance(make_step(trained.recipe), len(indices)))
        state, _ = advance(initial_state(trained), problem.data["train"], indices, len(indices))
        ends.append(jax.tree.leaves(state["params"]))
    for with_data, with_constants in zip(*ends):
        np.testing.assert_array_equal(with_data, with_constants)


def test_numbers_take_the_type_of_the_parameters_also_from_a_checkpoint():
    optimizer = transformation(average(), l2_decay(0.1), sgd(0.3))
    params = jnp.ones(3, jnp.bfloat16)
    state = optimizer.init(params)
    restored = from_arrays(state, to_arrays(state))
    for each in (state, restored):
        updates, _ = optimizer.update(params, each, params)
        assert updates.dtype == jnp.bfloat16
        np.testing.assert_array_equal(updates, jnp.bfloat16(-0.3) * (params + jnp.bfloat16(0.1)))


def test_a_step_is_traced_once_also_where_its_price_is_told(tmp_path):
    traces = []
    problem = Classification(
        model=MLP(width=3, depth=1),
        probes=(Probing(m=20, quantities="light"),),
        batch_size=10,
        steps=3,
    ).build(0)

    def update(*arguments, **options):
        traces.append(1)
        return problem.optimizer.update(*arguments, **options)

    counting = problem.extended(optimizer=problem.optimizer._replace(update=update))
    for name in ("a", "b"):
        with Run.open(tmp_path / name, {}, seed=0) as run:
            train([counting], [run], steps=3, batch_size=10, schedule=(0,), say=lambda _: None)
    assert len(traces) == 1


def test_snapshots_are_of_the_very_run(tmp_path):
    settings = Classification(
        model=MLP(width=3, depth=1), probes=(), track_batches=False, batch_size=10, steps=7
    )
    problem = settings.build(2)
    with Run.open(tmp_path / "run", {}, seed=2) as run:
        train([problem], [run], steps=7, batch_size=10, schedule=(0, 7))
    seen = dict(snapshots(problem, 2, (0, 3, 7), 10))
    assert list(seen) == [0, 3, 7]
    assert jax.tree.all(jax.tree.map(np.array_equal, seen[0], problem.params))
    ends = run.load("params")
    for name, leaf in to_arrays(seen[7]).items():
        np.testing.assert_array_equal(leaf, ends[name])


def test_the_labs_own_cache_is_bounded():
    assert len(PROGRAMS) <= PROGRAMS.size == 128
