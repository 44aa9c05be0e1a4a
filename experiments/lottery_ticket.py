"""Winning tickets: is the sub-network that training would keep coherent from the start, and has a
wider network a more coherent one?

A network is trained on digits, the largest fifth of each layer's weights is kept, and taken back to
its initial values: the winning ticket. Its examples' gradients, in the weights that are left, are
compared at step 0 with those of random sub-networks of the same size, and both are trained. The
sentence on width, that it is the most coherent sub-network that counts, is asked of the best of 50
random ones by width.
"""

import functools
from dataclasses import dataclass, replace

import numpy as np

from coherence.lab.analysis import computed, rank_correlation, single, tabulate, under
from coherence.lab.settings import MLP, digits

JUDGED = 256  # width


@dataclass(frozen=True)
class Ticket:
    """A network, its winning ticket and random sub-networks."""

    model: MLP = MLP(256)
    share: float = 0.2
    """Of each layer's weights that a sub-network keeps."""
    random: int = 50
    """Random sub-networks whose coherence is measured."""
    trained: int = 5
    """Of which so many are trained, too."""
    sample: int = 200
    rate: float = 0.1
    batch_size: int = 100
    steps: int = 600
    every: int = 20

    def describe(self):
        return "digits (1,437 examples)"

    def compute(self, seed):
        import jax

        data, rng = digits().build(), np.random.default_rng([seed, 6])
        train, coherence = programs(self.model, self.rate)
        start = self.model.build(10).init(jax.random.key(seed), data.x_train[:1])["params"]
        sample = rng.permutation(len(data.y_train))[: self.sample]
        chosen = data.x_train[sample], data.y_train[sample]
        shape = self.steps // self.every, self.every, self.batch_size
        batches = rng.integers(0, len(data.y_train), shape)
        whole = {name: np.ones(layer["kernel"].shape, np.float32) for name, layer in start.items()}
        trained, dense = train(_stacked([whole]), start, batches)
        ends = {name: np.asarray(layer["kernel"][0]) for name, layer in trained.items()}
        winning = {name: largest(kernel, self.share) for name, kernel in ends.items()}
        shuffled = lambda mask: rng.permutation(mask.ravel()).reshape(mask.shape)
        drawn = [
            {name: shuffled(mask) for name, mask in winning.items()} for _ in range(self.random)
        ]
        values = np.asarray(coherence(_stacked([whole, winning, *drawn]), start, chosen))
        _, accuracy = train(_stacked([winning, *drawn[: self.trained]]), start, batches)
        return {
            "whole": values[0],
            "winning": values[1],
            "random": values[2:],
            "whole_accuracy": np.asarray(dense[0]),
            "winning_accuracy": np.asarray(accuracy[0]),
            "random_accuracy": np.asarray(accuracy[1:]),
        }


def _stacked(masks):
    return {name: np.stack([mask[name] for mask in masks]) for name in masks[0]}


@functools.cache
def programs(setting, rate):
    """Training, and m-coherence, of a network under each of several masks: compiled."""
    import jax
    import jax.numpy as jnp

    from coherence import m_coherence
    from coherence.lab.tasks.classification import cross_entropy, evaluate

    data, model = digits().build(), setting.build(10)
    loss, score = cross_entropy(model), evaluate(model)
    x, y = jnp.asarray(data.x_train), jnp.asarray(data.y_train)

    def masked(params, mask):
        """The network with the weights outside of a mask at 0."""
        layers = {
            name: {**layer, "kernel": layer["kernel"] * mask[name]}
            for name, layer in params.items()
        }
        return {"params": layers}

    def coherence(mask, start, sample):
        """Of the weights that are left; a mask is no constant here, so by plain rows."""
        of_one = lambda example: jax.grad(loss)(masked(start, mask), example)["params"]
        rows = jax.vmap(of_one)(sample)
        return m_coherence({name: rows[name]["kernel"] * mask[name] for name in mask})

    def train(mask, start, batches):
        def total(params, index):
            of_one = lambda example: loss(masked(params, mask), example)
            return jax.vmap(of_one)((x[index], y[index])).mean()

        def step(params, index):
            g = jax.grad(total)(params, index)
            return jax.tree.map(lambda p, u: p - rate * u, params, g), None

        def stretch(params, indices):
            params, _ = jax.lax.scan(step, params, indices)
            return params, score(masked(params, mask), data.x_test, data.y_test).accuracy

        return jax.lax.scan(stretch, start, batches)

    each = lambda f: jax.jit(lambda masks, *rest: jax.lax.map(lambda mask: f(mask, *rest), masks))
    return each(train), each(coherence)


def largest(kernel, share):
    """1 for the given share of a matrix's entries that are largest in size, 0 for the others."""
    number = round(share * kernel.size)
    mask = np.zeros(kernel.size, np.float32)
    mask[np.argsort(-np.abs(kernel.ravel()), kind="stable")[:number]] = 1
    return mask.reshape(kernel.shape)


@dataclass(frozen=True)
class Settings:
    run: Ticket = Ticket()
    widths: tuple[int, ...] = (16, 64, 256)
    seeds: int = 8


PRESETS = {
    "smoke": Settings(
        Ticket(random=3, trained=2, sample=50, steps=20, every=10), (8, 256), seeds=2
    ),
    "cpu": Settings(),
    "paper": Settings(Ticket(random=1000, sample=1000, steps=6000)),
}
SOURCE_PRESETS = ("any",)  # ours has no scale

# What was fixed when: claims and thresholds before any run.


def scale(arms):
    return "digits (1,437 examples), one hidden layer"


def arms(settings):
    return {
        f"width={w}": replace(settings.run, model=replace(settings.run.model, width=w))
        for w in settings.widths
    }


def record(settings, runs):
    arrays = {"widths": np.array(settings.widths), "m": settings.run.sample}
    arrays["step"] = np.arange(1, settings.run.steps // settings.run.every + 1) * settings.run.every
    for arm, seeds in runs.items():
        arrays |= under(arm, computed(seeds))
    return single(arrays)


def judge(recorded):
    widths = recorded["widths"]
    logs = [np.log2(recorded[f"width={w}/random"]) for w in widths]
    best, mean = (np.stack([f(values) for values in logs], 1) for f in (_best, _mean))
    tested = {
        "wider networks have a more coherent sub-network": rank_correlation(widths, best),
        "beyond the network's own coherence": rank_correlation(widths, best - mean),
    }
    if JUDGED in widths:
        own = {
            name.removeprefix(f"width={JUDGED}/"): values
            for name, values in recorded.items()
            if name.startswith(f"width={JUDGED}/")
        }
        end = lambda name: own[f"{name}_accuracy"][..., -1]
        tested |= {
            "winning tickets are coherent from the start": np.log2(own["winning"])
            - np.log2(own["random"]).mean(1),
            "winning tickets learn": end("winning") - end("random").mean(1),
            "winning tickets keep the accuracy": end("winning") - end("whole") + 0.01,
        }
    return tested


def _best(values):
    return values.max(1)


def _mean(values):
    return values.mean(1)


def table(recorded):
    rows = []
    for w in recorded["widths"]:
        own = lambda name, w=w: recorded[f"width={w}/{name}"]
        rows.append(
            {
                "width": w,
                "m-coherence": own("whole"),
                "winning": own("winning"),
                "random": np.exp(np.log(own("random")).mean(1)),
                "best of them": own("random").max(1),
                "accuracy": own("whole_accuracy")[:, -1],
                "of winning": own("winning_accuracy")[:, -1],
                "of random": own("random_accuracy")[:, :, -1].mean(1),
            }
        )
    return tabulate(rows, f"m-coherence of {recorded['m']} examples at step 0")
