"""Rates of gradient descent against theory, where theory is exact: quadratics, convex functions,
saddles, steps and when to stop.

In float64, on random problems whose constants are known. Two parts are of real data: the variance
of mini-batches, of the per-example gradients of softmax regression, which is (1 / alpha - 1) times
the squared mean gradient over the size of the batch; and the optimal step g'g / g'Hg of a network,
against a grid.
"""

from dataclasses import dataclass

import numpy as np

from coherence.lab.analysis import computed, single, tabulate, under
from coherence.lab.settings import MLP, digits

KAPPAS = (2.0, 10.0, 100.0)
LARGER = (100.0, 1000.0, 10_000.0)
DISTANCES = 10.0 ** -np.arange(1, 13)
STEP = 0.1  # at the saddle
MULTIPLES = (0.5, 0.9, 0.999, 1.001, 1.1)  # of 2 / L
RATES = (0.05, 0.1, 0.2, 0.5, 1.0)  # eta lambda
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
AT = (0, 20, 100)  # steps of a network at which the optimal step is tried


@dataclass(frozen=True)
class Theory:
    """Problems whose constants are known, in numpy."""

    dimension: int = 20
    steps: int = 300
    chains: int = 256
    """Runs of SGD side by side."""

    def describe(self):
        return f"random quadratics of dimension {self.dimension}"

    def compute(self, seed):
        rng = np.random.default_rng([seed, 1])
        return {
            **rates(rng, self.dimension, self.steps),
            **bounds(rng, self.dimension, self.steps),
            **momentum(),
            **divergence(),
            **saddle(),
            **stopping(rng),
            **line_search(rng, self.dimension),
            **floor(rng, self.chains),
        }


def spectrum(rng, dimension, kappa):
    """Eigenvalues from 1 to kappa; the others stay away from both ends."""
    inner = 1 + (kappa - 1) * rng.uniform(0.1, 0.9, dimension - 2)
    return np.concatenate([[1.0, kappa], inner])


def descend(gradient, x, step, steps, momentum=0.0):
    """The iterates of gradient descent with heavy-ball momentum: [steps + 1, ...]."""
    path, before = [x], x
    for _ in range(steps):
        x, before = x - step * gradient(x) + momentum * (x - before), x
        path.append(x)
    return np.array(path)


def rates(rng, dimension, steps):
    """Deviation of the last step's factor from theory; and the paths of 2 / (L + mu)."""
    off, paths = [], []
    for kappa in KAPPAS:
        values = spectrum(rng, dimension, kappa)
        start = rng.normal(size=dimension)
        for step, factor in (
            (2 / (1 + kappa), (kappa - 1) / (kappa + 1)),
            (1 / kappa, 1 - 1 / kappa),
        ):
            path = np.linalg.norm(descend(lambda x: values * x, start, step, steps), axis=1)
            off.append(abs(path[-1] / path[-2] / factor - 1))
            if step > 1 / kappa:
                paths.append(path / path[0])
    return {"rates": np.max(off), "paths": np.array(paths)}


def bounds(rng, dimension, steps):
    """The largest excess over each bound, and the convex path with its bound."""
    strong = spectrum(rng, dimension, 100.0)
    convex = 100 * rng.uniform(size=dimension) ** 4  # with eigenvalues next to 0
    start, t = rng.normal(size=dimension), np.arange(1, steps + 1)
    excess = []
    for values in (strong, convex):
        path = descend(lambda x: values * x, start, 1 / values.max(), steps)
        f = 0.5 * (values * path**2).sum(1)
        bound = (start**2).sum() * values.max() / (2 * t)
        excess.append((f[1:] - bound).max())
        if values is strong:
            excess.append((f[1:] - (1 - 1 / 100) ** t * f[0]).max())
    valley = lambda x: 2 * x / (1 + x**2) ** 2  # the gradient of x^2 / (1 + x^2), whose L is 2
    path = descend(valley, 3 * start, 0.5, steps)
    squares = (valley(path) ** 2).sum(1)
    height = (9 * start**2 / (1 + 9 * start**2)).sum()
    excess.append((np.minimum.accumulate(squares)[:-1] - 2 * height / (0.5 * t)).max())
    return {"bounds": max(0.0, *excess), "convex": f[1:], "convex_bound": bound}


def momentum():
    """Steps to an error of 1e-8 by condition number, without and with the best momentum."""
    counts = []
    for kappa in LARGER:
        values, root = np.array([1.0, kappa]), np.sqrt(kappa)
        plain = np.log(1e-8) / np.log((kappa - 1) / (kappa + 1))
        path = descend(
            lambda x: values * x,
            np.ones(2),
            (2 / (1 + root)) ** 2,
            int(30 * root),
            ((root - 1) / (root + 1)) ** 2,
        )
        error = np.linalg.norm(path, axis=1) / np.sqrt(2)
        late = np.flatnonzero(error > 1e-8)[-1] + 1
        counts.append([np.ceil(plain), late])
    powers = np.polyfit(np.log(LARGER), np.log(counts), 1)[0]
    return {"steps_by_kappa": np.array(counts), "powers": np.abs(powers - [1, 0.5]).max()}


def divergence(steps=1000):
    """The error's factor a step around 2 / L, along the direction of curvature L = 1."""
    ends = [descend(lambda x: x, 1.0, 2 * multiple, steps)[-1] for multiple in MULTIPLES]
    factors = np.abs(ends) ** (1 / steps)
    return {
        "growth": factors,
        "divergence": np.abs(factors - np.abs(1 - 2 * np.array(MULTIPLES))).max(),
    }


def saddle():
    """Steps until y of x^2 - y^2 is 1 away, from each distance."""
    counts = []
    for y in DISTANCES:
        steps = 0
        while abs(y) < 1:
            y, steps = y + STEP * 2 * y, steps + 1
        counts.append(steps)
    exact = np.ceil(np.log(1 / DISTANCES) / np.log(1 + 2 * STEP))
    return {"escape": np.array(counts), "saddle": np.abs(counts - exact).max()}


def stopping(rng):
    """Steps at which the house's rule stops, beside the closed form."""
    from coherence.optim.stopping import any_of, gradient_norm, max_steps

    off, epsilon, params = [], 1e-4, np.zeros(1)
    for limit in (10_000, 50):
        curvature, start = rng.uniform(0.5, 1), rng.uniform(1, 2)
        rule = any_of(gradient_norm(epsilon), max_steps(limit))
        state, x, step = rule.init(params), start, 0
        while True:
            state = rule.update(state, (abs(curvature * x), step), params)
            if state.should_stop:
                break
            x, step = x - STEP * curvature * x, step + 1
        reached = np.log(epsilon / (curvature * start)) / np.log(1 - STEP * curvature)
        off.append(abs(step - min(np.ceil(reached), limit)))
    return {"stopping": np.max(off)}


def line_search(rng, dimension):
    """The optimal step against a numerical line search, on quadratics with any Hessian."""
    from scipy.optimize import minimize_scalar

    off = []
    for _ in range(5):
        root = rng.normal(size=(dimension, dimension))
        hessian, x = root @ root.T / dimension + 0.1 * np.eye(dimension), rng.normal(size=dimension)
        g = hessian @ x
        along = lambda step: 0.5 * (x - step * g) @ hessian @ (x - step * g)
        best = minimize_scalar(along, options={"xtol": 1e-12}).x
        off.append(abs((g @ g) / (g @ hessian @ g) / best - 1))
    return {"optimal_step": np.max(off)}


def floor(rng, chains):
    """The mean squared distance of SGD from the minimum over its theory: [rate, batch].

    The loss of an example a is (x - a)^2 / 2, examples are standard normal, batches are drawn anew.
    The first tenth of the steps is left out.
    """
    ratios = []
    for rate in RATES:
        for b in (1, 8):
            x = np.zeros(chains)
            squares = []
            for step in range(2000):
                x = (1 - rate) * x + rate * rng.normal(size=chains) / np.sqrt(b)
                if step >= 200:
                    squares.append((x**2).mean())
            ratios.append(np.mean(squares) * b * (2 - rate) / rate)
    return {"floor": np.reshape(ratios, (len(RATES), 2))}


@dataclass(frozen=True)
class Batches:
    """Mini-batches of the per-example gradients of softmax regression at zero weights."""

    draws: int = 4000

    def describe(self):
        return "softmax regression on digits"

    def compute(self, seed):
        rng = np.random.default_rng([seed, 2])
        data = digits().build()
        x = data.x_train.astype(float)
        cotangents = 0.1 - np.eye(10)[data.y_train]  # p - y at equal logits
        mean = x.T @ cotangents / len(x)
        squares = (x**2).sum(1) * (cotangents**2).sum(1)
        alpha = (mean**2).sum() / squares.mean()
        variances = []
        for b in BATCHES:
            drawn = rng.integers(0, len(x), (self.draws * 64 // max(b, 64), b))
            gradients = x[drawn].swapaxes(1, 2) @ cotangents[drawn] / b
            variances.append(((gradients - mean) ** 2).sum((1, 2)).mean())
        theory = (1 / alpha - 1) * (mean**2).sum() / np.array(BATCHES)
        return {"variance": np.array(variances), "theory": theory, "alpha": alpha}


@dataclass(frozen=True)
class OptimalStep:
    """A network's loss after one step of g'g / g'Hg, beside a grid of steps."""

    model: MLP = MLP(64)
    rate: float = 0.5
    """Of the descent in between."""
    points: int = 60

    def describe(self):
        return "digits (1,437 examples), full batch"

    def compute(self, seed):
        import jax
        import jax.numpy as jnp

        from coherence.lab.tasks.classification import cross_entropy

        data = digits().build()
        model = self.model.build(10)
        params = model.init(jax.random.key(seed), data.x_train[:1])
        each = jax.vmap(cross_entropy(model), (None, 0))
        loss = lambda params: each(params, (data.x_train, data.y_train)).mean()
        gradient = jax.grad(loss)
        dot = lambda a, b: sum(jnp.vdot(u, v) for u, v in zip(*map(jax.tree.leaves, (a, b))))
        moved = lambda params, g, step: jax.tree.map(lambda p, u: p - step * u, params, g)

        @jax.jit
        def tried(params):
            g = gradient(params)
            curvature = dot(g, jax.jvp(gradient, (params,), (g,))[1])
            best = dot(g, g) / curvature
            grid = jnp.geomspace(best / 30, 30 * best, self.points)
            return (
                best,
                loss(moved(params, g, best)),
                grid,
                jax.lax.map(lambda step: loss(moved(params, g, step)), grid),
            )

        step = jax.jit(lambda params: moved(params, gradient(params), self.rate))
        results, done = [], 0
        for at in AT:
            while done < at:
                params, done = step(params), done + 1
            results.append([np.asarray(part) for part in tried(params)])
        best, after, grid, losses = map(np.array, zip(*results))
        return {"best": best, "after": after, "grid": grid, "losses": losses}


@dataclass(frozen=True)
class Settings:
    theory: Theory = Theory()
    batches: Batches = Batches()
    network: OptimalStep = OptimalStep()
    seeds: int = 8


PRESETS = {
    "smoke": Settings(Theory(chains=16), Batches(100), OptimalStep(MLP(8), points=10), seeds=2),
    "cpu": Settings(),
    "paper": Settings(Theory(100, chains=4096), Batches(40_000), OptimalStep(MLP(512, 2))),
}
SOURCE_PRESETS = ("any",)  # theorems have no scale

# What was fixed when: claims and thresholds before any run. Known before, of a trial elsewhere with
# one seed: the optimal step of a network at its start is 1.07, the best of a grid 0.77.


def scale(arms):
    return "; ".join(arm.describe() for arm in arms.values())


def arms(settings):
    return {"theory": settings.theory, "batches": settings.batches, "network": settings.network}


def record(settings, runs):
    arrays = {"kappas": np.array(KAPPAS), "larger": np.array(LARGER), "distances": DISTANCES}
    arrays |= {"multiples": np.array(MULTIPLES), "rates": np.array(RATES)}
    arrays |= {"batches": np.array(BATCHES), "at": np.array(AT)}
    for name, seeds in runs.items():
        arrays |= under(name, computed(seeds))
    return single(arrays)


def judge(recorded):
    worst = lambda name: recorded[f"theory/{name}"].max()
    after, losses = recorded["network/after"], recorded["network/losses"].min(-1)
    least = np.minimum(after, losses)
    floors = recorded["theory/floor"].mean(0)
    variance = (recorded["batches/variance"] / recorded["batches/theory"]).mean(0)
    return {
        "linear rates on quadratics": worst("rates"),
        "bounds hold": worst("bounds"),
        "momentum takes the root of the condition number": worst("powers"),
        "divergence at 2 / L": worst("divergence"),
        "saddles are left in log(1 / epsilon) steps": worst("saddle"),
        "stops at a small gradient or at the last step": worst("stopping"),
        "the optimal step on a quadratic": worst("optimal_step"),
        "the optimal step of a network": {
            f"step {at}": after[:, i] / least[:, i] - 1 for i, at in enumerate(recorded["at"])
        },
        "SGD has a floor": np.abs(floors - 1).max(),
        "variance falls as 1 / b": np.abs(variance - 1).max(),
    }


def table(recorded):
    steps = [
        {
            "kappa": f"{kappa:,.0f}",
            "steps to 1e-8": f"{plain:,.0f}",
            "with momentum": f"{fast:,.0f}",
        }
        for kappa, (plain, fast) in zip(recorded["larger"], recorded["theory/steps_by_kappa"][0])
    ]
    network = [
        {
            "step": at,
            "g'g / g'Hg": recorded["network/best"][:, i],
            "loss after it": recorded["network/after"][:, i],
            "least of the grid": recorded["network/losses"][:, i].min(-1),
        }
        for i, at in enumerate(recorded["at"])
    ]
    return f"{tabulate(steps)}\n\n{tabulate(network)}"
