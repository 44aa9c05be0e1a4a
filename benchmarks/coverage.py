"""How often the intervals of `measure` hold what they should, by tail heaviness and m.

    python benchmarks/coverage.py [--draws 1000]

Gradients with a known alpha: a common direction and noise, their lengths lognormal. One row a
setting: the share of draws whose interval holds alpha + (1 - alpha) / m, what a sample of m has on
average; that of the draws without a warning; and how many were warned about.
"""

import argparse
import pathlib
import sys
import warnings

import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from coherence.metrics import UntrustworthyInterval, measure

DIMENSIONS = 10
SIGMAS, SIZES, SIGNALS = (0.25, 0.5, 0.75, 1.0), (100, 300, 1000, 3000, 10_000), (0.1, 0.5, 1.5)


def loss(w, x):
    """Its per-example gradients are the examples."""
    return jnp.dot(w, x)


def draw(rng, m, sigma, signal):
    """[m, DIMENSIONS], and alpha of the population."""
    x = rng.normal(size=(m, DIMENSIONS)) / np.sqrt(DIMENSIONS)
    x[:, 0] += signal
    return (x * rng.lognormal(sigma=sigma, size=(m, 1))).astype(np.float32), signal**2 / (
        signal**2 + 1
    ) * np.exp(-(sigma**2))


def coverage(m, sigma, signal, draws):
    """Share of draws covered, of those without a warning, and share warned about."""
    rng, covered, warned = np.random.default_rng(0), [], []
    for _ in range(draws):
        x, alpha = draw(rng, m, sigma, signal)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", UntrustworthyInterval)
            found = measure(loss, jnp.ones(DIMENSIONS), x, batch_size=m)
        covered.append(found.low <= alpha + (1 - alpha) / m <= found.high)
        warned.append(bool(said))
    covered, warned = np.array(covered), np.array(warned)
    return (
        covered.mean(),
        covered[~warned].mean() if (~warned).sum() >= 20 else np.nan,
        warned.mean(),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=1000)
    chosen = parser.parse_args()
    print(
        f"{'sigma':>6} {'m':>7} {'alpha':>7}  {'covered':>8} {'unwarned':>9} {'warned':>7}   of "
        f"{chosen.draws} draws"
    )
    for sigma in SIGMAS:
        for m in SIZES:
            for signal in SIGNALS:
                alpha = draw(np.random.default_rng(0), 1, sigma, signal)[1]
                found = coverage(m, sigma, signal, chosen.draws)
                print(
                    f"{sigma:>6} {m:>7,} {alpha:>7.3f}  {found[0]:>8.3f} {found[1]:>9.3f} "
                    f"{found[2]:>7.2f}",
                    flush=True,
                )
