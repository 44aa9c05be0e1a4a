"""JAX libraries: each function returns `(params, batch) -> (squared norms [m], mean gradient)`."""

import jax
import jax.numpy as jnp
from nets_jax import problem


def jax_privacy(loss, m, microbatch_size=None):
    """Clipping at infinity: the mean of all gradients, with their norms."""
    import jax_privacy

    clipped = jax_privacy.clipped_grad(
        loss,
        l2_clip_norm=jnp.inf,
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


def in_microbatches(loss, m):
    """Its option for memory, which also saves time where the gradients of all examples fill it."""
    return jax_privacy(loss, m, max(size for size in range(1, 11) if m % size == 0))


def coherence(loss, m):
    import coherence as co

    def run(params, batch):
        _, gradients = co.per_example_value_and_grad(loss)(params, batch)
        return co.gradients.squared_norms(gradients), co.mean(gradients)

    return run


PEERS = {
    "jax_privacy": jax_privacy,
    "jax_privacy microbatches": in_microbatches,
    "coherence": coherence,
}


def case(net, peer, checked):
    """`(peer's call, plain call, its numbers, expected numbers, note)`.

    The numbers: squared norms of `checked` examples, of the mean.
    """
    loss, params, batch = problem(net)
    mean_loss = lambda p, b: jnp.mean(jax.vmap(loss, (None, 0))(p, b))
    measured, plain, one = (
        jax.jit(PEERS[peer](loss, len(batch[0]))),
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
        return [*looped, squared(plain(params, batch)[1])]

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
