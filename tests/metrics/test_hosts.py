"""Two processes, each with half of the examples, pool to what is measured of all."""

import os
import socket
import subprocess
import sys

SCRIPT = """
import sys
import jax
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(sys.argv[1], num_processes=2, process_id=int(sys.argv[2]))
import jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from coherence.metrics import m_coherence, mean_gsnr, pool

g = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32) + 0.3
mesh = jax.make_mesh((2,), ("host",), axis_types=(jax.sharding.AxisType.Auto,))
half = g[20 * int(sys.argv[2]) :][:20]
mine = jax.make_array_from_process_local_data(NamedSharding(mesh, P("host")), half)
pooled = lambda g: pool({"w": g}, variances=True).over("host")
over = jax.shard_map(pooled, mesh=mesh, in_specs=P("host"), out_specs=P())
pooled = jax.jit(over)(mine)
everything = pool({"w": jnp.asarray(g)}, variances=True)
local = jax.tree.map(lambda x: jnp.asarray(x.addressable_data(0)), pooled)
for metric in (m_coherence, mean_gsnr):
    np.testing.assert_allclose(metric(local), metric(everything), rtol=1e-5)
assert int(local.m) == 40
"""


def test_hosts_pool_to_the_whole():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")]),
    }
    options = {"env": environment, "stderr": subprocess.PIPE, "text": True}
    both = [
        subprocess.Popen([sys.executable, "-c", SCRIPT, address, str(i)], **options)
        for i in range(2)
    ]
    try:
        for process in both:
            _, said = process.communicate()
            assert process.returncode == 0, said[-2000:]
    finally:
        for process in both:
            process.kill()
