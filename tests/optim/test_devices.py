"""Order statistics over eight devices: the bits of one, factors gathered once."""

from tests import eight_devices

SCRIPT = """
import collections, re
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
import coherence as co
from tests import zoo

assert len(jax.devices()) == 8
mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
params = {"w": zoo.normal(0, 200, 192), "b": zoo.normal(1, 192), "v": zoo.normal(2, 192, 5)}
loss = lambda p, e: jnp.sum((jnp.tanh(e[0] @ p["w"] + p["b"]) @ p["v"] - e[1]) ** 2)

def same_bits(tx, m):
    batch = zoo.normal(3, m, 200), zoo.normal(4, m, 5)
    gradients = jax.jit(lambda p, b: co.per_example_value_and_grad(loss)(p, b)[1])(params, batch)
    update = lambda g, p: tx.update(g, tx.init(p), p)[0]
    one = jax.jit(update)(gradients, params)
    sharded = jax.tree.map(lambda x: jax.device_put(x, NamedSharding(mesh, P("data"))), gradients)
    everywhere = jax.tree.map(lambda x: jax.device_put(x, NamedSharding(mesh, P())), params)
    with jax.set_mesh(mesh):
        program = jax.jit(lambda g, p: update(g, p)).lower(sharded, everywhere).compile()
    eight = program(sharded, everywhere)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight)):
        np.testing.assert_array_equal(a, b)
    move = r"= \\S+ (all-gather|all-to-all|collective-permute)"
    moves = collections.Counter(re.findall(move, program.as_text()))
    assert sum(moves.values()) < 12, f"examples travel one by one: {moves}"
    assert eight["w"].sharding.spec == P(None, "data"), eight["w"].sharding

same_bits(co.optim.winsorize(5), 24)
same_bits(co.optim.median(), 24)
same_bits(co.optim.median(), 144)  # counting passes

# A batch of its own on each device, in a checked `shard_map`: loops start varying.
auto = (jax.sharding.AxisType.Auto,)
mesh = jax.make_mesh((2,), ("data",), axis_types=auto, devices=jax.devices()[:2])
params = {"w": zoo.normal(0, 6, 5), "b": zoo.normal(1, 5), "v": zoo.normal(2, 5, 3)}

def each_its_own(m, *rules):
    batch = zoo.normal(3, 2, m, 6), zoo.normal(4, 2, m, 3)
    def steps(p, b):
        gradients = co.per_example_value_and_grad(loss)(p, jax.tree.map(lambda x: x[0], b))[1]
        updates = [tx.update(gradients, tx.init(p), p)[0] for tx in rules]
        return jax.tree.map(lambda x: x[None], updates)
    split = jax.shard_map(steps, mesh=mesh, in_specs=(P(), P("data")), out_specs=P("data"))
    ours = jax.jit(split)(params, batch)
    once = jax.jit(steps)
    alone = [once(params, jax.tree.map(lambda x: x[i : i + 1], batch)) for i in range(2)]
    for a, b in zip(jax.tree.leaves(ours), zip(*map(jax.tree.leaves, alone))):
        np.testing.assert_allclose(a, np.concatenate(b), rtol=1e-4, atol=1e-5)

each_its_own(8, co.optim.geometric_median(), co.optim.top_k(0.5), co.optim.winsorize(20))
each_its_own(130, co.optim.trimmed_mean(10), co.optim.median())
"""


def test_eight_devices_take_the_bits_of_one_and_each_may_have_its_own():
    eight_devices.run(SCRIPT)
