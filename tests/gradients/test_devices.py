"""Over several devices: the same numbers as on one, and the batch stays where it is."""

from tests import eight_devices

SCRIPT = """
import jax, jax.numpy as jnp, numpy as np, optax
from jax.sharding import NamedSharding, PartitionSpec as P
import coherence as co
from tests import zoo

assert len(jax.devices()) == 8
mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
params = {"w": zoo.normal(0, 30, 20), "b": zoo.normal(1, 20), "v": zoo.normal(2, 20, 4)}
batch = (zoo.normal(3, 64, 30), zoo.normal(4, 64, 4))
loss = lambda p, e: jnp.sum((jnp.tanh(e[0] @ p["w"] + p["b"]) @ p["v"] - e[1]) ** 2)

def measured(p, b):
    losses, g = co.per_example_value_and_grad(loss)(p, b)
    norms, dots = co.gradients.squared_norms(g), co.gradients.dot(g, p)
    return losses, norms, co.alpha(g, by="leaf"), co.mean(g), dots

one = jax.jit(measured)(params, batch)
sharded = jax.tree.map(lambda x: jax.device_put(x, NamedSharding(mesh, P("data"))), batch)
everywhere = jax.tree.map(lambda x: jax.device_put(x, NamedSharding(mesh, P())), params)
program = jax.jit(measured).lower(everywhere, sharded).compile()
eight = program(everywhere, sharded)
for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight)):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
text = program.as_text()
assert "all-reduce" in text
assert "all-gather" not in text, "the batch or the factors are gathered"

tx = co.optim.chain(co.optim.winsorize(5), optax.sgd(0.1))
gradients = co.per_example_value_and_grad(loss)
step = jax.jit(lambda p, b: tx.update(gradients(p, b)[1], tx.init(p), p)[0])
for a, b in zip(jax.tree.leaves(step(params, batch)), jax.tree.leaves(step(everywhere, sharded))):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
"""


def test_eight_devices_give_the_numbers_of_one_without_gathering_the_batch():
    eight_devices.run(SCRIPT)
