"""Depth amplifies what examples share: exactly so in chains of factors; what of it is seen in
networks is asked of digits.

On the six-feature set, a weight that is a product of factors moves the faster the further it has
come, so the shared feature outgrows the private ones by more the deeper the chain. Networks and
deep linear networks of growing depth learn digits with some random labels, compared at equal
training loss: how coherent their gradients are, how much of the step lies along the gradients' main
direction, and how much of the random labels they have memorized. What a large step shows beyond a
small one is probably oscillation: one seed had sharpness times step size near 2 and consecutive
full gradients that point against each other, in the deep networks alone.
"""

from dataclasses import dataclass, replace

import numpy as np

from coherence.lab.analysis import (
    alpha_ratio,
    at_losses,
    first_at,
    parameter_count,
    single,
    stacked,
    tabulate,
    under,
)
from coherence.lab.settings import (
    MLP,
    DeepLinear,
    DiagonalChain,
    Probing,
    label_noise,
    mnist,
    sgd,
)
from coherence.lab.training.classification import Classification
from coherence.lab.training.regression import Regression
from coherence.probes.schedules import Every, LogSpaced

EXAMPLES = 4
FITTED = 1e-8  # training loss of a chain below which gradients are rounding error
LEVELS = tuple(round(2.2 - 0.2 * i, 1) for i in range(11))  # nats; log 10 = 2.3 at chance
EARLY, MIDDLE, LATE = 1.8, 1.2, 0.6  # half, and nearly all, of what true labels give; memorizing
JUDGED = ((EARLY, False), (MIDDLE, False), (MIDDLE, True))  # at which loss, with the large step
WINDOW = 20
CHAIN_CURVES = ("shared", "private", "train_loss", "test_loss", "alpha")
NAMES = {"mlp": "MLP", "linear": "linear network"}


def chain_weights(view):
    """What the factors of a chain make up: [6]."""
    import jax
    import jax.numpy as jnp

    return jnp.prod(jnp.stack(jax.tree.leaves(view.params)), 0)[:, 0]


def _chain(learning_rate, steps):
    """Full-batch gradient descent on the six-feature set, measured 200 times."""
    every = steps // 200
    quantities = (chain_weights, "m_coherence")
    return Regression(
        model=DiagonalChain(initial=0.01),
        optimizer=sgd(learning_rate),
        steps=steps,
        every=every,
        probes=(Probing(m=EXAMPLES, quantities=quantities, groups="none", when=Every(every)),),
    )


def main_share(view):
    """Share of the mean gradient's squared norm along the gradients' first principal direction.

    Not centred. With G = V L V', the mean's part along direction k is l_k (v_k . 1)^2.
    """
    import jax.numpy as jnp

    from coherence.gradients import gram

    lengths, directions = jnp.linalg.eigh(gram(view.few))
    parts = lengths.clip(min=0) * jnp.square(directions.sum(0))
    return parts[-1] / parts.sum()


# Training examples whose gradients' main direction is looked for.
MAIN = Probing(m=300, quantities=(main_share,), groups="none", when=LogSpaced(16), stream=3)


@dataclass(frozen=True)
class Network(Classification):
    """A classifier of which the gradients' main direction is looked at, too."""

    noise: label_noise = label_noise(0.2)
    optimizer: sgd = sgd(0.02)
    points_per_decade: int = 16
    probes: tuple[Probing, ...] = (MAIN,)

    def describe(self):
        data = self.data.build()
        noise = f"{self.noise.fraction:.0%} random labels"
        return (
            f"{data.name} ({len(data.y_train):,} examples, {noise}), width {self.model.width}; "
            "six-feature set"
        )


@dataclass(frozen=True)
class Settings:
    run: Network = Network()
    """At the small step; its model's width is that of all networks."""
    chain: Regression = _chain(0.001, 20_000)
    chains: tuple[int, ...] = (1, 2, 3, 4, 6)
    """Factors of a chain."""
    width: int = 64
    mlp_depths: tuple[int, ...] = (1, 2, 3, 4)
    """Hidden layers."""
    linear_depths: tuple[int, ...] = (0, 1, 2, 4)
    """Hidden layers of the networks without nonlinearity; 0 is one matrix."""
    large_learning_rate: float = 0.1
    """At which the shallowest and the deepest are trained, too.

    For comparison, and until MLPs memorize.
    """
    large_steps: int = 6000
    seeds: int = 8


_SMALL = Network(steps=100, probes=(replace(MAIN, m=60),))
_LARGE = Network(data=mnist(), steps=20_000)
PRESETS = {
    "smoke": Settings(
        _SMALL, _chain(0.01, 2000), (1, 3), 32, (1, 2), (1,), large_steps=100, seeds=2
    ),
    "cpu": Settings(),
    "paper": Settings(
        _LARGE,
        width=512,
        mlp_depths=(1, 2, 3, 4, 6),
        linear_depths=(0, 1, 2, 4, 6),
        large_steps=60_000,
    ),
}


def _more_coherent(kind, level, large):
    return f"deeper {NAMES[kind]}s are more coherent at {level:g}{', large step' * large}"


# Thresholds were fixed before any run: gradient descent of step size 0.001 stays within 1 % of the
# flow, and alpha within float32. Trial runs of the networks with one seed set the number of steps,
# by whether they reach the loss levels, and showed that at the step size planned first, 0.1, the
# deepest oscillate along one direction: sharpness times step size is 1.9 for the MLP of four hidden
# layers and 1.7 for the linear network (2: unstable), and consecutive gradients of the former have
# a cosine of -0.5; with one hidden layer or none, 0.5 and 0.1. The step size stays for comparison,
# the small one was added, and the share of the main direction, which had been that at one level,
# became a mean over levels. What is there at the large step only is probably oscillation (measured
# for one seed).


def arms(settings):
    run, large = settings.run, sgd(settings.large_learning_rate)
    kinds = {
        "mlp": (MLP, settings.mlp_depths, settings.large_steps),
        "linear": (DeepLinear, settings.linear_depths, run.steps),
    }
    small_step, large_step = {}, {}
    for kind, (network, depths, steps) in kinds.items():
        plans = {depth: replace(run, model=network(settings.width, depth)) for depth in depths}
        small_step |= {f"{kind}-{depth}": plan for depth, plan in plans.items()}
        for depth in (depths[0], depths[-1]):
            plan = replace(plans[depth], optimizer=large, steps=steps)
            large_step[f"{kind}-{depth}-large"] = plan
    chains = {
        f"chain-{depth}": replace(settings.chain, model=replace(settings.chain.model, depth=depth))
        for depth in settings.chains
    }
    return small_step | large_step | chains


def record(settings, runs):
    depths = {
        "chain": settings.chains,
        "mlp": settings.mlp_depths,
        "linear": settings.linear_depths,
    }
    rates = [settings.run.optimizer.learning_rate, settings.large_learning_rate]
    arrays = {
        **under("depths", {kind: np.array(each) for kind, each in depths.items()}),
        "initial": settings.chain.model.initial,
        "chain_learning_rate": settings.chain.optimizer.learning_rate,
        "m": settings.run.batch_size,
        "levels": np.array(LEVELS),
        "judged": np.array([EARLY, MIDDLE, LATE]),
        "fitted": FITTED,
        "learning_rates": np.array(rates),
    }
    for arm, seeds in runs.items():
        if arm.startswith("chain"):
            arrays |= under(arm, single(_chain_curves(seeds[0])))  # nothing in them is random
            continue
        curves = stacked(seeds, "train_loss", "train/main_share", "corrupt_accuracy")
        curves["main_share"], loss = curves.pop("train/main_share"), curves["train_loss"][:, None]
        at = {
            name: first_at(loss, curves[name][:, None], LEVELS, falling=True)
            for name in ("main_share", "corrupt_accuracy")
        }
        coherence = at_losses(seeds, LEVELS, WINDOW)
        parameters = parameter_count(seeds[0])
        arrays |= under(arm, {"parameters": parameters, "m_coherence": coherence, **at})
    return arrays


def _chain_curves(run):
    names = ("train_loss", "test_loss", "train/chain_weights", "train/m_coherence")
    curves = {name: values[0] for name, values in stacked([run], *names).items() if name != "step"}
    weights, alpha = curves["train/chain_weights"], curves["train/m_coherence"] / EXAMPLES
    values = (weights[:, 5], weights[:, 0], curves["train_loss"], curves["test_loss"], alpha)
    return {"step": stacked([run])["step"], **dict(zip(CHAIN_CURVES, values))}


def private(shared, depth, initial, m=EXAMPLES):
    """A private weight of a chain from the shared one, in the limit of small steps."""
    if depth == 1:
        return initial + (shared - initial) / m
    if depth == 2:
        return initial ** (1 - 1 / m) * shared ** (1 / m)
    power = 1 - 2 / depth
    return (initial**-power - (initial**-power - shared**-power) / m) ** (-1 / power)


def final(depth, initial):
    """The shared and a private weight of a chain that fits: their sum is 1."""
    low, high = initial, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if middle + private(middle, depth, initial) < 1:
            low = middle
        else:
            high = middle
    return low, private(low, depth, initial)


def chain_alpha(shared, own, depth, m=EXAMPLES):
    power = 2 - 2 / depth
    return (shared**power + own**power / m) / (shared**power + own**power)


def judge(recorded):
    tested = _of_chains(recorded)
    for kind, name in NAMES.items():
        ends = [f"{kind}-{depth}" for depth in recorded[f"depths/{kind}"][[-1, 0]]]
        for level, large in JUDGED:
            pair = (_at(recorded, arm + "-large" * large, "m_coherence", level) for arm in ends)
            tested[_more_coherent(kind, level, large)] = alpha_ratio(*pair, int(recorded["m"]))
        shares = [_main_share(recorded, arm) for arm in ends]
        tested[f"deeper {name}s follow the main direction"] = np.subtract(*shares)
    ends = [f"mlp-{depth}-large" for depth in recorded["depths/mlp"][[-1, 0]]]
    memorized = [_at(recorded, arm, "corrupt_accuracy", LATE) for arm in ends]
    return {**tested, "deeper MLPs memorize less": np.subtract(*memorized)}


def _at(recorded, arm, name, level):
    return recorded[f"{arm}/{name}"][:, LEVELS.index(level)]


def _main_share(recorded, arm):
    return recorded[f"{arm}/main_share"][:, LEVELS.index(EARLY) : LEVELS.index(MIDDLE) + 1].mean(1)


def _of_chains(recorded):
    initial = float(recorded["initial"])
    follows, alphas, single, rises, ratios, losses = [], [], [0.0], [0.0], [], []
    for depth in recorded["depths/chain"]:
        shared, own, train, test, alpha = (
            recorded[f"chain-{depth}/{name}"] for name in CHAIN_CURVES
        )
        moving = train > FITTED
        follows.append(np.abs(own / private(shared, depth, initial) - 1).max())
        alphas.append(np.abs(alpha - chain_alpha(shared, own, depth))[moving].max())
        if depth == 1:
            single.append(np.abs(alpha - 0.625)[moving].max())
        else:
            rises += [-np.diff(alpha[moving]).min(), 0.9 - alpha[moving][-1]]
        limit_shared, limit_own = final(depth, initial)
        ratios.append(abs(shared[-1] / own[-1] / (limit_shared / limit_own) - 1))
        losses.append(abs(test[-1] / (0.5 * (1 - limit_shared - initial) ** 2) - 1))
    return {
        "private follows shared": max(follows),
        "alpha of a chain": max(alphas),
        "one factor does not amplify": max(single),
        "two or more do": max(rises),
        "deeper chains share more": max(ratios),
        "deeper chains generalize better": max(losses),
    }


def table(recorded):
    chains, networks = [], []
    for depth in recorded["depths/chain"]:
        shared, own, train, test, alpha = (
            recorded[f"chain-{depth}/{name}"] for name in CHAIN_CURVES
        )
        limit_shared, limit_own = final(depth, float(recorded["initial"]))
        chains.append(
            {
                "factors": depth,
                "shared / private": f"{shared[-1] / own[-1]:.3g}",
                "closed form": f"{limit_shared / limit_own:.3g}",
                "test loss": f"{test[-1]:.2g}",
                "alpha at the end": f"{alpha[train > FITTED][-1]:.3f}",
            }
        )
    for kind, name in NAMES.items():
        depths, (small, large) = recorded[f"depths/{kind}"], recorded["learning_rates"]
        ends = [(depth, "-large", large) for depth in depths[[0, -1]]]
        for depth, end, rate in [*((depth, "", small) for depth in depths), *ends]:
            arm = f"{kind}-{depth}{end}"
            networks.append(
                {
                    "network": name,
                    "hidden layers": depth,
                    "parameters": f"{recorded[f'{arm}/parameters']:,}",
                    "step size": f"{rate:g}",
                    f"m-coh. at {EARLY:g}": _at(recorded, arm, "m_coherence", EARLY),
                    f"at {MIDDLE:g}": _at(recorded, arm, "m_coherence", MIDDLE),
                    "main share": _main_share(recorded, arm),
                    f"corrupt fitted at {LATE:g}": _at(recorded, arm, "corrupt_accuracy", LATE),
                }
            )
    note = (
        f"at a training loss of so many nats; m-coherence of batches of {recorded['m']};\n"
        f"main share: of the step, along the gradients' main direction, from {EARLY:g} to "
        f"{MIDDLE:g}; - if a seed never gets there"
    )
    return f"{tabulate(chains)}\n\n{tabulate(networks, note)}"
