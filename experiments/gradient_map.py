"""A map of the training set as the optimizer sees it: examples are near whose gradients agree, and
that is a matter of the labels they were given.

Every example's gradient is one point in as many dimensions as there are parameters. Three ways to
reduce these, none of which forms the gradients: principal directions through the Gram matrix of the
examples, a random projection of the factors (`project`), and t-SNE of such sketches, by the angle
between gradients. How many directions hold the gradients, and how many the mean step? How long must
a sketch be to keep m-coherence? And who are the neighbours of an example: those of its class, those
of its given label, those whose labels are corrupt, too, or those that are learned when it is?
"""

from dataclasses import dataclass, replace

import numpy as np

from coherence.lab.analysis import (
    computed,
    first_at,
    rank_correlation,
    single,
    tabulate,
    too_low,
)
from coherence.lab.claims import Ratio
from coherence.lab.experiment import all_arms
from coherence.lab.settings import MLP, label_noise, mnist, sgd
from coherence.lab.training.classification import Classification

ARMS = {"true": 0.0, "half": 0.5, "random": 1.0}  # shares of permuted labels
EQUAL = 1.0  # nats: the sample's training loss at which labels are compared
LENGTHS = (10, 100, 1000)  # of the sketches whose m-coherence is compared
DRAWN = 256  # numbers of a sketch that becomes a place on a map
LEADING = 10  # principal directions
NEIGHBOURS = 10  # of each example on a map
FITTED = 0.9  # least accuracy on pristine examples at the end
QUANTITIES = ("loss", "for 85 %", "leading share", "for 90 % of the step", "m-coherence")
KINDS = ("given", "true", "corrupt")
MOMENTS = ("start", f"{EQUAL:g} nat", "end")


@dataclass(frozen=True)
class Training(Classification):
    """A classifier of some of MNIST, others with every seed."""

    data: mnist = mnist(examples=2000)
    model: MLP = MLP(width=64, depth=1)
    optimizer: sgd = sgd(0.05, 0.9)
    points_per_decade: int = 5
    probes: tuple = ()
    track_batches: bool = False


@dataclass(frozen=True)
class Map:
    """What the gradients of some training examples look like while a network is trained."""

    run: Training
    sample: int
    """Examples whose gradients are reduced."""
    shown: int
    """Examples on the moving map, of the first seed; 0 for none."""
    frames: int

    def describe(self):
        return self.run.describe()

    def compute(self, seed):
        from coherence.lab.training.programs import PROGRAMS
        from coherence.lab.training.step import snapshots

        problem = self.run.build(seed)
        (x, y), corrupt = problem.data["train"], problem.data["corrupt"]
        clean = replace(self.run, noise=label_noise(0.0)).build(seed).data["train"][1]
        order = np.random.default_rng([seed, 0x3A9]).permutation(len(y))
        few, many = order[: self.sample], order[: self.shown if seed == 0 else 0]
        look = PROGRAMS.get(_looking, self.run.model.build(10), problem.loss)
        steps = self.run.schedule()
        shown = {steps[round(i)] for i in np.linspace(0, len(steps) - 1, self.frames)}
        rows, rights, sketches, places, learned = [], [], [], [], []
        for step, params in snapshots(problem, seed, steps, self.run.batch_size):
            loss, right, products, each = look(params, x[few], y[few])
            sketched = [np.square(s.sum(0)).sum() / np.square(s).sum() for s in each[1:]]
            rows.append([loss.mean(), *directions(products), *sketched])
            rights.append(right)
            sketches.append(each[0])
            if len(many):
                loss, right, _, each = look(params, x[many], y[many])
                learned.append(right)
                if step in shown:
                    places.append(tsne(each[0], seed, places[-1] if places else None))
        rows, rights = np.array(rows), np.array(rights)
        # Where it first falls to a nat, else the end.
        reached = [*np.flatnonzero(rows[:, 0] <= EQUAL), len(steps) - 1][0]
        kinds = [y[few], clean[few], corrupt[few]]
        shares = [
            neighbour_shares(nearest(tsne(sketches[i], seed)), kinds, rights.mean(0))
            for i in (0, reached, len(steps) - 1)
        ]
        return {
            "step": np.array(steps),
            "quantities": rows[:, : len(QUANTITIES)],
            "sketched": rows[:, len(QUANTITIES) :],
            "pristine": rights[-1][~corrupt[few]].mean() if not corrupt[few].all() else np.nan,
            "corrupt": corrupt[few].mean(),
            "neighbours": np.array(shares),
            "places": np.array(places, np.float32),
            "labels": np.stack([y[many], clean[many], corrupt[many]]).astype(np.int8),
            "learned": np.mean(learned, 0) if learned else np.zeros(0),
        }


@dataclass(frozen=True)
class Settings:
    run: Training = Training(steps=2000)
    sample: int = 500
    shown: int = 1000
    frames: int = 8
    seeds: int = 8


_SMALL = Training(data=mnist(examples=200), model=MLP(width=16, depth=1), steps=30, batch_size=50)
_LARGE = Training(data=mnist(), model=MLP(width=2048), steps=100_000)
PRESETS = {
    "smoke": Settings(_SMALL, sample=60, shown=60, frames=2, seeds=2),
    "cpu": Settings(),
    "paper": Settings(_LARGE, sample=2000, shown=2000, frames=16, seeds=8),
}
scale = all_arms

# What was fixed when: every statistic and threshold before any run of this file. Trial numbers had
# been seen, of single runs of another program on the bundled digits (500 examples, 4,810
# parameters): directions for 85 % of true labels 26 and then 18, of random ones 56 and then 65; the
# ten leading ones' share of the mean gradient 0.98 and then 0.51, and 0.94 and then 0.73;
# m-coherence 14.0 and 4.85, of sketches of 1,000 numbers 14.8 and 5.07; all neighbours on a map of
# random labels share the given label, 0.55 the true one. Then one seed that is not judged (100,
# half of the labels permuted) was run for its costs, and nothing was changed. The first recording
# had 5 seeds, for time, though 8 had been asked for beforehand; seen in it: random labels +0.59
# doublings, [0.46, 0.72], inconclusive, as were both claims on the mean step and the share of
# neighbours of the given label, 0.88 [0.80, 0.96]; the other five were reproduced. With 8 nothing
# else was changed.


def arms(settings):
    """The three shares of permuted labels; the moving map is of half of them."""
    return {
        name: Map(
            replace(settings.run, noise=label_noise(share)),
            settings.sample,
            settings.shown if name == "half" else 0,
            settings.frames,
        )
        for name, share in ARMS.items()
    }


def _looking(model, loss):
    """`(params, x, y) -> (losses, whether right, Gram matrix, sketches of all lengths)`."""
    import jax

    from coherence import per_example_value_and_grad
    from coherence.gradients import gram, project
    from coherence.lab.tasks.chunks import predictor

    predict = predictor(model)

    @jax.jit
    def look(params, x, y):
        losses, gradients = per_example_value_and_grad(loss)(params, (x, y))
        right = predict(params, x).argmax(-1) == y
        sketches = [project(gradients, k, jax.random.key(k)) for k in (DRAWN, *LENGTHS)]
        return losses, right, gram(gradients), sketches

    return lambda *arguments: jax.device_get(look(*arguments))


def directions(products):
    """`QUANTITIES` but for the loss, from the examples' Gram matrix.

    Principal directions are those of the second moment, nothing is centred: how many hold 85 % of
    the mean square, what the leading ones hold of the mean step's square, how many of them hold
    90 % of that, and m-coherence.
    """
    squares, vectors = np.linalg.eigh(products.astype(np.float64))
    squares, vectors = np.maximum(squares[::-1], 0), vectors[:, ::-1]
    held = np.cumsum(squares) / squares.sum()
    steps = squares * vectors.sum(0) ** 2  # m^2 times the squares of the mean step's components
    of_step = np.cumsum(steps) / steps.sum()
    enough = lambda shares, share: int(np.searchsorted(shares, share)) + 1
    coherence = products.sum(dtype=np.float64) / np.trace(products)
    return enough(held, 0.85), of_step[LEADING - 1], enough(of_step, 0.9), coherence


def tsne(points, seed, start=None):
    """Places in the plane [n, 2], near where the angle between points is small."""
    from sklearn.manifold import TSNE

    start = "random" if start is None else start / start.std() * 1e-2
    perplexity = min(30, len(points) / 4)
    method = TSNE(2, metric="cosine", init=start, perplexity=perplexity, random_state=seed)
    return method.fit_transform(points)


def nearest(places):
    """The indices of each place's nearest others, [n, NEIGHBOURS]."""
    distances = np.square(places[:, None] - places).sum(-1)
    np.fill_diagonal(distances, np.inf)
    return np.argsort(distances, 1)[:, :NEIGHBOURS]


def neighbour_shares(near, kinds, learned):
    """Of each kind, the share of neighbours that share it; of the corrupt, of their neighbours.

    Then the rank correlation of how long an example and its neighbours are right.
    """
    given, true, corrupt = kinds
    same = [np.mean(kind[near] == kind[:, None]) for kind in (given, true)]
    gathered = np.mean(corrupt[near[corrupt]]) if corrupt.any() else np.nan
    return [*same, gathered, rank_correlation(learned, learned[near].mean(1))]


def record(settings, runs):
    """Quantities as [seed, time]; neighbours as [seed, moment, kind]; the moving map of a seed."""
    arrays = {}
    for arm, seeds in runs.items():
        values = computed(seeds, "quantities", "sketched", "neighbours", "pristine", "corrupt")
        arrays |= {f"{arm}/{name}": each for name, each in values.items()}
    first = runs["half"][0].load("computed")
    places = first["places"] / np.abs(first["places"]).max((1, 2), keepdims=True)
    return {
        **single(arrays),
        "step": first["step"],
        "lengths": np.array(LENGTHS),
        "places": np.round(places * 127).astype(np.int8),
        "labels": first["labels"],
        "learned": np.round(first["learned"] * 100).astype(np.int8),
    }


def at_equal_loss(recorded, arm, name):
    """A quantity where the sample's loss first falls to `EQUAL`: [seed]."""
    values = recorded[f"{arm}/quantities"]
    return first_at(values[..., 0], values[..., QUANTITIES.index(name)], EQUAL, falling=True)


def judge(recorded):
    quantity = lambda arm, name: recorded[f"{arm}/quantities"][..., QUANTITIES.index(name)]
    neighbours = lambda arm, moment, kind: recorded[f"{arm}/neighbours"][:, moment, kind]
    errors = {
        arm: np.abs(recorded[f"{arm}/sketched"] / quantity(arm, "m-coherence")[..., None] - 1)
        for arm in ARMS
    }
    error = lambda k: {arm: e[..., LENGTHS.index(k)].mean(1) for arm, e in errors.items()}
    needed = [at_equal_loss(recorded, arm, "for 85 %") for arm in ("random", "true")]
    leading = {
        arm: quantity(arm, "leading share")[:, 0] - at_equal_loss(recorded, arm, "leading share")
        for arm in ("true", "random")
    }
    few = {arm: quantity(arm, "for 90 % of the step")[:, 0] for arm in ("true", "random")}
    given, true, corrupt, learned = range(4)
    least = np.min(recorded["half/pristine"])
    fitted = too_low(least, FITTED, "pristine examples were not fitted: accuracy")
    return {
        "random labels need more directions": Ratio(*needed),
        "a thousand numbers keep m-coherence": error(1000),
        "ten numbers do not": error(10),
        "few directions hold the mean step": few,
        "the mean step leaves the leading directions": leading,
        "neighbours share the given label": neighbours("random", 1, given),
        "and not the true class": neighbours("random", 1, given) - neighbours("random", 1, true),
        "corrupt examples gather": (
            neighbours("half", 2, corrupt) - recorded["half/corrupt"],
            fitted,
        ),
        "neighbours are learned together": {
            moment: neighbours("half", i, learned) for i, moment in enumerate(MOMENTS) if i < 2
        },
    }


def table(recorded):
    rows = []
    for arm in ARMS:
        for place, name in ((0, "start"), (-1, "end")):
            values = recorded[f"{arm}/quantities"][:, place]
            rows.append({"labels": arm, "when": name, **dict(zip(QUANTITIES, values.T))})
    near = [
        {"labels": arm, "when": moment, **dict(zip((*KINDS, "learned"), values.T))}
        for arm in ARMS
        for moment, values in zip(MOMENTS, recorded[f"{arm}/neighbours"].swapaxes(0, 1))
    ]
    note = f"shares of the {NEIGHBOURS} nearest on a map; learned: rank correlation"
    return f"{tabulate(rows)}\n\n{tabulate(near, note)}"
