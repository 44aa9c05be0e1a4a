"""Probes in the loop change nothing, are read when due, and do not notice an interruption."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from coherence.lab.runs import Run
from coherence.lab.settings import MLP, Probing, digits, label_noise, plain
from coherence.lab.training import Classification, Problem, train
from coherence.lab.training.agenda import Agenda
from coherence.lab.training.samples import stream_key
from coherence.probes import AtLoss, Epochs, Every, LogSpaced, Probe
from tests import zoo

LOSS = lambda p, e: 0.5 * jnp.sum((jnp.tanh(e[0] @ p["w"] + p["b"]) - e[1]) ** 2)


def problem(seed, probes=True, **kwargs):
    x, y = zoo.normal(99, 40, 6), zoo.normal(seed, 40, 2)
    some = (
        Probe(
            LOSS,
            (x[:20], y[:20]),
            name="early",
            when=AtLoss((0.9, 0.8, 0.7), window=4),
            quantities="light",
        ),
        Probe(
            LOSS,
            (x, y),
            name="full",
            when=Every(15),
            quantities="full",
            groups=np.arange(40) < 10,
            batch_size=16,
            few=8,
        ),
    )
    return Problem(
        loss=LOSS,
        params={"w": zoo.normal(seed + 1, 6, 2), "b": jnp.zeros(2)},
        data={"train": (x, y)},
        optimizer=optax.adam(0.05),
        measure=lambda p, data: {
            "train_loss": jnp.mean(jax.vmap(LOSS, (None, 0))(p, data["train"]))
        },
        probes=some if probes else (),
        **kwargs,
    )


def learn(folder, seeds=(0,), make=problem, schedule=(0, 3, 60), **kwargs):
    with contextlib.ExitStack() as stack:
        runs = [
            stack.enter_context(Run.open(folder / f"seed={seed}", {"batch_size": 8}, seed=seed))
            for seed in seeds
        ]
        train(
            [make(seed) for seed in seeds],
            runs,
            steps=60,
            batch_size=8,
            schedule=schedule,
            **kwargs,
        )
    return [Run.read(folder / f"seed={seed}") for seed in seeds]


def holding(run, name):
    return [record["step"] for record in run.records() if name in record]


def test_a_run_with_probes_ends_at_the_bits_of_one_without(tmp_path):
    (probed,), (plain,) = (
        learn(tmp_path / "a"),
        learn(tmp_path / "b", make=lambda seed: problem(seed, probes=False)),
    )
    for one, other in zip(
        probed.load("params").values(), plain.load("params").values(), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(probed.load("batches")["loss"], plain.load("batches")["loss"])


def test_each_probe_is_read_when_it_is_due_and_a_step_has_one_record(tmp_path):
    (run,) = learn(tmp_path)
    assert holding(run, "train_loss") == [0, 3, 60]
    assert holding(run, "full/m_coherence") == [0, 15, 30, 45, 60]
    steps = [record["step"] for record in run.records()]
    assert steps == sorted(set(steps))
    at = holding(run, "early/loss")
    assert (at[0], at[-1]) == (0, 60)
    means = run.load("batches")["loss"].reshape(-1, 4).mean(1)
    first = {
        4 * (np.flatnonzero(means <= level * run.load("batches")["loss"][0])[0] + 1)
        for level in (0.9, 0.8, 0.7)
    }
    assert set(at) == {0, 60, *first}
    assert len(first) > 1


def test_a_reading_is_that_of_the_parameters_at_its_step(tmp_path):
    (run,) = learn(tmp_path)
    made = problem(0)
    start, end = (run.records()[i] for i in (0, -1))
    for name, value in made.probes[1](made.params).items():
        np.testing.assert_allclose(jax.tree.leaves(start[name]), jax.tree.leaves(value), rtol=1e-5)
    final = {"w": jnp.asarray(run.load("params")["w"]), "b": jnp.asarray(run.load("params")["b"])}
    assert end["full/m_coherence"] == pytest.approx(
        made.probes[1](final)["full/m_coherence"], rel=1e-5
    )
    assert len(start["full/contributions"]) == 8


@pytest.mark.parametrize("vmapped", [False, True])
@pytest.mark.parametrize("at", [2, 5])
def test_an_interruption_leaves_no_trace_in_the_readings(tmp_path, vmapped, at):
    seeds = (0, 1)
    whole = learn(tmp_path / "a", seeds, vmapped=vmapped)
    calls = []

    def interrupt(n):
        calls.append(n)
        if len(calls) == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path / "b", seeds, vmapped=vmapped, checkpoint_seconds=0, progress=interrupt)
    for one, other in zip(whole, learn(tmp_path / "b", seeds, vmapped=vmapped)):
        assert one.records() == other.records()


def test_seeds_share_one_program_and_have_each_their_sample(tmp_path):
    traced = []

    def counting(seed):
        made = problem(seed)
        loss = lambda p, e: traced.append(1) or LOSS(p, e)
        probe = Probe(
            loss, jax.tree.map(lambda x: x[: 10 + 0 * seed], made.data["train"]), quantities="light"
        )
        return Problem(
            loss=LOSS, params=made.params, data=made.data, optimizer=made.optimizer, probes=(probe,)
        )

    learn(tmp_path / "a", (0,), make=counting)
    one = len(traced)
    traced.clear()
    runs = learn(tmp_path / "b", (0, 1, 2), make=counting)
    assert len(traced) == one
    assert len({run.records()[0]["train/m_coherence"] for run in runs}) == 3


def test_the_price_is_said_before_anything_is_read(tmp_path):
    said = []
    learn(tmp_path, say=said.append)
    assert len(said) == 2
    assert said[1].startswith("probe full: ")
    assert "quantities at 5 of 60 steps; a reading takes about" in said[1]
    assert said[1].endswith("% of the training")


def test_a_classifier_is_probed_on_the_sets_its_settings_name(tmp_path):
    probes = (
        Probing(m=60, when=Epochs(1.0), groups="class"),
        Probing("test", 50, when=LogSpaced(1), groups="none"),
        Probing("pristine", 40, "light", "none", Every(20)),
        Probing("corrupt", 40, "light", "none", Every(20), name="wrong"),
    )
    settings = Classification(model=MLP(8), noise=label_noise(0.5), steps=28, probes=probes)
    made = settings.build(0)
    with Run.open(tmp_path / "run", {}, seed=0) as run:
        train([made], [run], steps=28, batch_size=100, schedule=settings.schedule())
    run = Run.read(tmp_path / "run")
    assert holding(run, "train/m_coherence") == [0, 14, 28]
    assert holding(run, "wrong/m_coherence") == [0, 20, 28]
    assert len(run.records()[0]["train/m_coherence_by_group"]) == 10
    assert run.axes["train/m_coherence_by_group"] == ["group"]
    assert run.axes["train/m_coherence_by_layer"] == ["layer"]
    drawn, shown = run.load("drawn"), run.load("examples-wrong")
    assert drawn["corrupt"][drawn["sample-wrong"]].all()
    assert not drawn["corrupt"][drawn["sample-pristine"]].any()
    np.testing.assert_array_equal(
        shown["labels"], drawn["labels"][drawn["sample-wrong"]][shown["index"]]
    )
    clean = Classification(model=MLP(8), probes=probes).build(0)
    assert [probe.name for probe in clean.probes] == [
        "train",
        "test",
        "pristine",
    ]  # nothing is corrupt


def test_groups_of_a_probe_are_those_of_its_own_examples():
    probes = (
        Probing(of="train", m=300, groups="class"),
        Probing(of="test", m=200, groups="class"),
        Probing(of="train", m=100, name="wrong"),
        Probing(of="test", m=100, name="unseen"),
    )
    made = Classification(model=MLP(8), noise=label_noise(0.5), probes=probes).build(0)
    groups = {probe.name: np.asarray(probe.sample.groups) for probe in made.probes}
    labels = {part: np.asarray(made.data[part][1]) for part in ("train", "test")}
    for part in ("train", "test"):
        np.testing.assert_array_equal(groups[part], labels[part][made.drawn[f"sample-{part}"]])
    np.testing.assert_array_equal(
        groups["wrong"], made.drawn["corrupt"][made.drawn["sample-wrong"]]
    )
    assert not groups["unseen"].any()  # nothing is corrupt there


def test_an_extended_problem_measures_more_and_shares_its_program_with_its_equals():
    made = Classification(model=MLP(8), probes=()).build(0)
    more = lambda params, data: {"offset": data["offset"] + 1}
    longer = made.extended(measure=more, data={"offset": np.float32(2.0)}, track_batches=False)
    measured = longer.measure(longer.params, longer.data)
    assert measured["offset"] == 3.0
    assert measured["train_loss"] == made.measure(made.params, made.data)["train_loss"]
    assert (longer.track_batches, made.track_batches) == (False, True)
    assert longer.measure == made.extended(measure=more).measure
    with pytest.raises(ValueError, match=r"extended\(data\): the problem has train already"):
        made.extended(data={"train": ()})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Probing(of="validation"),
            r"Probing\(of\): one of train, test, pristine, corrupt, got 'validation'",
        ),
        (
            lambda: Probing(groups="labels"),
            r"Probing\(groups\): one of none, corrupt, class, got 'labels'",
        ),
        (
            lambda: Probing(quantities="all"),
            r"Probing\(quantities\): one of light, standard, examples, full, histograms, or a "
            "tuple, got 'all'",
        ),
        (
            lambda: Probing(m=1),
            "Probing: m and few are at least 2 examples and batch_size at least 1, got m=1, "
            "few=512, batch_size=1000",
        ),
    ],
)
def test_bad_probings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def examples_seen(view):
    return len(view.few_groups)


def test_settings_take_functions_of_what_a_probe_sees_and_say_them_by_name():
    probing = Probing(m=20, quantities=("gradient_norm", examples_seen))
    run = Classification(model=MLP(4), probes=(probing,))
    assert plain(run)["probes"][0]["quantities"] == ["gradient_norm", "examples_seen"]
    made = run.build(0)
    reading = made.probes[0](made.params)
    assert reading["train/examples_seen"] == 20
    assert set(reading) == {"train/examples_seen", "train/gradient_norm"}


def test_a_sample_of_its_own_stream_does_not_depend_on_other_probes():
    own = Probing(m=20, name="own", quantities="light", stream=3)
    other = Probing(m=50, quantities="light")
    run = Classification(model=MLP(4), probes=(own,))
    drawn = lambda run, seed=0: run.build(seed).drawn["sample-own"]
    both = dataclasses.replace(run, probes=(other, own))
    np.testing.assert_array_equal(drawn(run), drawn(both))
    assert (drawn(run) != drawn(run, seed=1)).any()
    order = np.random.default_rng([0, 3]).permutation(1437)
    np.testing.assert_array_equal(drawn(run), np.sort(order[:20]))


def test_seeds_far_apart_share_no_stream_of_random_numbers():
    data = lambda seed, purpose=0: tuple(jax.random.key_data(stream_key(seed, purpose)).tolist())
    seeds = [0, 1, 7, 2**29, 2**29 + 7, 2**30 + 7, 2**32, 2**32 + 7, 2**64 + 7, 3 * 2**96]
    assert len({data(seed, purpose) for seed in seeds for purpose in range(6)}) == 6 * len(seeds)
    for seed in (0, 7, 4_294_967):  # as far as JAX takes a number whole
        assert data(seed, 2) == tuple(jax.random.key_data(jax.random.key(seed * 1000 + 2)).tolist())


@pytest.mark.parametrize("steps", [5_000, 80_000])
def test_asking_for_the_next_step_looks_at_few_of_those_scheduled(steps):
    looked = 0

    class Counted(list):
        def __getitem__(self, i):
            nonlocal looked
            looked += 1
            return super().__getitem__(i)

        def __iter__(self):
            raise AssertionError("all of them are looked at")

    agenda = Agenda((), range(steps), steps, per_epoch=10)
    agenda.fixed = Counted(agenda.fixed)
    assert all(agenda.next(position) == position + 1 for position in range(steps))
    assert looked <= 20 * steps


def test_accuracies_of_all_pristine_and_corrupt_examples_come_from_one_pass():
    data = digits(examples=1000)  # one chunk
    made = Classification(data=data, model=MLP(8), noise=label_noise(0.5), probes=()).build(0)
    program = jax.make_jaxpr(made.measure)(made.params, made.data)
    example = jax.tree.map(lambda leaf: leaf[0], made.data["test"])
    one_pass = jax.make_jaxpr(made.loss)(made.params, example)
    products = lambda jaxpr: str(jaxpr).count("dot_general")
    assert products(program) == 2 * products(one_pass)  # training and test examples
