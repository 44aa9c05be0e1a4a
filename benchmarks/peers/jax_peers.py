"""JAX libraries: each function returns `(params, batch) -> (squared norms [m], mean gradient)`.

Those that clip return the mean of the clipped gradients instead.
"""

import jax
import jax.numpy as jnp
import optax
from nets_jax import problem

MAX_NORM = 1.0  # of clipping: below most lengths


def jax_privacy(loss, m, microbatch_size=None, max_norm=jnp.inf):
    """Clipping at infinity: the mean of all gradients, with their norms."""
    import jax_privacy

    clipped = jax_privacy.clipped_grad(
        loss,
        l2_clip_norm=max_norm,
        normalize_by=m,
        keep_batch_dim=False,
        return_values=True,
        return_grad_norms=True,
        microbatch_size=microbatch_size,
    )

    def run(params, batch):
        mean, aux = clipped(params, batch)
        return aux.grad_norms**2, mean

    return run


def in_microbatches(loss, m, max_norm=jnp.inf):
    """Its option for memory, which also saves time where the gradients of all examples fill it."""
    return jax_privacy(loss, m, divisor(m), max_norm)


def divisor(m):
    """The largest microbatch of up to 10 examples."""
    return max(size for size in range(1, 11) if m % size == 0)


def micro_grad(loss, m):
    """optax's gradients of a microbatch at a time, with their norms as its metric."""
    function = optax.microbatching.micro_grad(
        loss,
        keep_batch_dim=False,
        microbatch_size=divisor(m),
        accumulator=optax.microbatching.AccumulationType.MEAN,
        metrics_fn=lambda g: optax.tree.norm(g, squared=True),
    )

    def run(params, batch):
        mean, aux = function(params, batch)
        return aux.metrics, mean

    return run


def coherence(loss, m):
    import coherence as co

    def run(params, batch):
        _, gradients = co.per_example_value_and_grad(loss)(params, batch)
        return co.gradients.squared_norms(gradients), co.mean(gradients)

    return run


def coherence_clipped(loss, m):
    import coherence as co

    tx = co.optim.clipped_mean(MAX_NORM)

    def run(params, batch):
        _, gradients = co.per_example_value_and_grad(loss)(params, batch)
        return co.gradients.squared_norms(gradients), tx.update(gradients, tx.init(params))[0]

    return run


PEERS = {
    "jax_privacy": jax_privacy,
    "jax_privacy microbatches": in_microbatches,
    "micro_grad": micro_grad,
    "coherence": coherence,
}
CLIPPED = {
    "jax_privacy, clipped": lambda loss, m: jax_privacy(loss, m, max_norm=MAX_NORM),
    "jax_privacy microbatches, clipped": lambda loss, m: in_microbatches(loss, m, MAX_NORM),
    "coherence, clipped": coherence_clipped,
}


def case(net, peer, checked):
    """`(peer's call, plain call, its numbers, expected numbers, note)`.

    The numbers: squared norms of `checked` examples, of the mean.
    """
    loss, params, batch = problem(net)
    mean_loss = lambda p, b: jnp.mean(jax.vmap(loss, (None, 0))(p, b))
    measured, plain, one = (
        jax.jit((PEERS | CLIPPED)[peer](loss, len(batch[0]))),
        jax.jit(jax.value_and_grad(mean_loss)),
        jax.jit(jax.grad(loss)),
    )

    def numbers():
        norms, mean = measured(params, batch)
        return [*norms[:checked].tolist(), squared(mean)]

    def expected():
        looped = [
            squared(one(params, jax.tree.map(lambda leaf: leaf[i], batch))) for i in range(checked)
        ]
        if peer not in CLIPPED:
            return [*looped, squared(plain(params, batch)[1])]
        m, total = len(batch[0]), jax.tree.map(jnp.zeros_like, params)
        for i in range(m):
            g = one(params, jax.tree.map(lambda leaf: leaf[i], batch))
            scale = min(1, MAX_NORM / squared(g) ** 0.5) / m
            total = jax.tree.map(lambda t, x: t + scale * x, total, g)
        return [*looped, squared(total)]

    wait = jax.block_until_ready
    return (
        (lambda: wait(measured(params, batch))),
        (lambda: wait(plain(params, batch))),
        numbers,
        expected,
        "",
    )


def squared(tree):
    return float(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)))
