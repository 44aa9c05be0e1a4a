"""Losses, norms, alpha by layer and the mean gradient, against one plain gradient.

    python benchmarks/per_example.py [--quick] [--only cnn]

One row a network, each compiled and timed in turn with its plain gradient in the same process. The
mean gradient is compared with the plain one, and the squared norms of a few examples with gradients
taken one by one.
"""

import argparse
import math
import pathlib
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from timing import compiled, ratio

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import coherence as co
from coherence.lab.models import CNN, GAN, LSTM, MLP, ResNet, Transformer, UNet
from coherence.lab.tasks import adversarial_losses, cross_entropy, noise_prediction_error
from coherence.lab.tasks.adversarial import adversarial_loss
from coherence.lab.tasks.noise_schedules import linear_schedule


class Net(NamedTuple):
    """A network, what draws its batch, and what is asked of it.

    Time and memory over the plain gradient's.
    """

    model: object
    draw: object
    time: float
    memory: float
    task: object = cross_entropy
    part: str = ""
    """Of the parameters, where the others are held fixed."""
    told: tuple = ()
    """What the network is initialized with, besides an example."""


def images(*shape):
    return lambda rng: (rng.random(shape, np.float32), rng.integers(10, size=shape[0]))


def tokens(rng):
    text = rng.integers(256, size=(16, 129))
    return text[:, :-1], text[:, 1:]


def images_and_keys(*shape):
    """Keys as plain numbers."""
    of_keys = lambda rng: rng.integers(2**32, size=(shape[0], 2)).astype(np.uint32)
    return lambda rng: (rng.random(shape, np.float32), of_keys(rng))


def discriminator_loss(model):
    losses = adversarial_losses(model)
    return lambda params, example: losses(params, example).discriminator


def diffusion_loss(model):
    return noise_prediction_error(model, linear_schedule())


PLAYERS = GAN(width=512, latents=64, shape=(28, 28, 1))
NETS = {
    "mlp": Net(MLP(width=2048, depth=1), images(100, 784), 1.15, 1.2),
    "cnn": Net(CNN(), images(128, 32, 32, 3), 1.3, 1.5),
    "resnet18": Net(ResNet(), images(32, 32, 32, 3), 1.5, 2.0),
    "transformer": Net(Transformer(tied=False), tokens, 1.5, 2.0),
    "tied": Net(Transformer(), tokens, 1.5, 2.0),
    "lstm": Net(LSTM(), images(32, 64, 32), 2.0, 2.0),
    "gan": Net(PLAYERS, images_and_keys(128, 28, 28, 1), 1.2, 1.5, adversarial_loss),
    "its D": Net(
        PLAYERS,
        images_and_keys(128, 28, 28, 1),
        1.2,
        1.5,
        discriminator_loss,
        part="discriminator",
    ),
    "unet": Net(UNet(), images_and_keys(64, 8, 8, 1), 1.2, 2.0, diffusion_loss, told=(0,)),
}
COMPILE = 3.0


def problem(net):
    """The loss of one example (for sequences the mean over positions), parameters and a batch."""
    batch = jax.tree.map(jnp.asarray, net.draw(np.random.default_rng(0)))
    losses = net.task(net.model)
    loss = lambda params, example: jnp.mean(losses(params, example))
    params = jax.jit(net.model.init)(jax.random.key(0), batch[0][:1], *net.told)
    if not net.part:
        return loss, params, batch
    players = params["params"]
    of_part = lambda part, example: loss({"params": {**players, net.part: part}}, example)
    return of_part, players[net.part], batch


def measure(name, net, pairs):
    """The net's row of the table."""
    loss, params, batch = problem(net)
    plain = lambda p, b: jax.value_and_grad(lambda q: jnp.mean(jax.vmap(loss, (None, 0))(q, b)))(p)

    def ours(p, b):
        losses, g = co.per_example_value_and_grad(loss)(p, b)
        return losses, co.gradients.squared_norms(g), co.alpha(g, by="layer"), co.mean(g)

    fast, reference = compiled(ours, params, batch), compiled(plain, params, batch)
    _, norms, _, mean = fast.run()
    expected = jax.tree.leaves(reference.run()[1])
    floor = 1e-3 * max(
        jnp.max(jnp.abs(x)) for x in expected
    )  # a bias in front of a softmax has a gradient of rounding errors only
    worst = max(_difference(a, b, floor) for a, b in zip(jax.tree.leaves(mean), expected))
    one = jax.jit(lambda p, e: sum(jnp.sum(g**2) for g in jax.tree.leaves(jax.grad(loss)(p, e))))
    worst = max(
        worst,
        *(
            _difference(norms[i], one(params, jax.tree.map(lambda x, i=i: x[i], batch)))
            for i in range(3)
        ),
    )
    assert worst < 1e-4, worst
    took = ratio(fast.run, reference.run, pairs, warmup=2)
    share = _fast_share(loss, params, batch)
    memory = (fast.temporaries + fast.outputs) / (reference.temporaries + reference.outputs)
    compiling = fast.seconds_to_compile / reference.seconds_to_compile
    times = f"{took!s:>20} {net.time:>5} {took.a * 1e3:>8.1f} {took.b * 1e3:>8.1f}"
    return (
        f"{name:12} {times} {memory:>8.2f} {net.memory:>5} {compiling:>8.1f} {COMPILE:>5} "
        f"{worst:>10.0e} {share:>6.1%}"
    )


def _fast_share(loss, params, batch):
    """Share of the parameters (numbers, not leaves) whose gradients a rule makes."""
    nodes = jax.eval_shape(co.per_example_value_and_grad(loss), params, batch)[1]
    nodes = jax.tree.leaves(
        nodes,
        is_leaf=lambda x: isinstance(
            x, co.gradients.Factored | co.gradients.Stacked | co.gradients.Recomputed
        ),
    )
    recomputed = sum(math.prod(x.shape) for x in nodes if isinstance(x, co.gradients.Recomputed))
    return 1 - recomputed / sum(math.prod(x.shape) for x in nodes)


def _difference(a, b, floor=0.0):
    return float(jnp.max(jnp.abs(a - b)) / jnp.maximum(jnp.max(jnp.abs(b)), floor))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer pairs")
    parser.add_argument("--only", choices=NETS, help="one network")
    chosen = parser.parse_args()
    times = f"{'time over plain':>20} {'<=':>5} {'ms':>8} {'plain':>8}"
    print(
        f"{'':12} {times} {'memory':>8} {'<=':>5} {'compile':>8} {'<=':>5} {'difference':>10} "
        f"{'fast':>6}"
    )
    for name, net in NETS.items():
        if chosen.only in (None, name):
            pairs = (10 if chosen.quick else 50) * (4 if name == "mlp" else 1)
            print(measure(name, net, pairs), flush=True)
