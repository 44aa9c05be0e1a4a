# %% [markdown]
# # Probes in a plain optax loop
#
# Half of the training labels of a small data set are made random. Whose gradients make the steps,
# and when: the pristine examples' or the corrupt ones'? A probe answers on a fixed sample at chosen
# steps; the training step can also read its own batch, at every step, from the gradients that it
# computes anyway.
#
# Below, the loop is yours: a model as a function of parameters, `optax`, a `for`. What is added is
# marked with `# probe`: seven lines.

# %%
import tempfile
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

import coherence as co
from coherence.lab.claims import interval
from coherence.lab.data import corrupt_labels
from coherence.lab.report import describe
from coherence.lab.runs import Run
from coherence.probes import LogSpaced, Probe, batch_readings, cost

STEPS, SEEDS, BATCH, WIDTH, GROUP = 400, 4, 100, 128, 250

# %% [markdown]
# ## Your data, model and step
#
# `corrupt` marks the examples whose label really changed.

# %%
images, digits = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(digits))
x, true = (images[order[:1400]] / 16).astype(np.float32), digits[order[:1400]].astype(np.int32)


def init(key):
    keys, sizes = jax.random.split(key, 3), [(64, WIDTH), (WIDTH, WIDTH), (WIDTH, 10)]
    kernels = [jax.random.normal(k, size) * np.sqrt(2 / size[0]) for k, size in zip(keys, sizes)]
    return {
        name: {"kernel": w, "bias": jnp.zeros(w.shape[1])}
        for name, w in zip(("first", "second", "head"), kernels)
    }


def model(params, x):
    dense = lambda name, x: x @ params[name]["kernel"] + params[name]["bias"]
    return dense("head", jax.nn.relu(dense("second", jax.nn.relu(dense("first", x)))))


def loss(params, example):
    """The loss of ONE example: no batch axis, no mean."""
    image, label = example
    return optax.losses.softmax_cross_entropy_with_integer_labels(model(params, image), label)


optimizer = optax.sgd(0.1, momentum=0.9)


@jax.jit
def step(params, state, batch):
    losses, gradients = co.per_example_value_and_grad(loss)(params, batch)
    updates, state = optimizer.update(
        co.mean(gradients), state, params
    )  # the mean loss's gradient, as from jax.grad
    readings = batch_readings(losses, gradients)  # probe
    return optax.apply_updates(params, updates), state, readings


# %% [markdown]
# ## Your loop, with a probe in it
#
# The probe looks at a fixed sample with as many pristine as corrupt examples, so that what it says
# of the two can be compared. It compiles once: the next seed's probe has the same shapes and reuses
# the program. What was read may go anywhere; in a run's folder `coherence show`, `compare` and
# `report` find it. (`noise` in the settings tells them what the two groups are.)

# %%
RUNS = Path(tempfile.mkdtemp())
SETTINGS = {"learning_rate": 0.1, "momentum": 0.9, "batch_size": BATCH, "noise": {"fraction": 0.5}}


def probe_of(seed):
    """One seed's labels, and a probe of `GROUP` pristine and `GROUP` corrupt examples of them."""
    y, corrupt = corrupt_labels(true, 0.5, seed=seed)
    rng = np.random.default_rng(seed)
    sample = np.concatenate(
        [rng.choice(np.flatnonzero(corrupt == g), GROUP, replace=False) for g in (False, True)]
    )
    batch = x[sample], y[sample]
    return y, Probe(loss, batch, groups=corrupt[sample], when=LogSpaced(8))  # probe


def train(seed, y, probe=None, run=None):
    rng = np.random.default_rng(seed)
    params = init(jax.random.key(seed))
    state = optimizer.init(params)
    for t in range(STEPS + 1):
        if probe is not None and probe.due(t, STEPS):  # probe
            probe.record(run, t, params)  # probe
        if t == STEPS:
            return params
        batch = rng.choice(len(y), BATCH, replace=False)
        params, state, readings = step(params, state, (x[batch], y[batch]))
        if run is not None:  # probe
            run.append(
                {"step": t, **{f"batch/{name}": value for name, value in readings.items()}}
            )  # probe


ends = []
for seed in range(SEEDS):
    y, probe = probe_of(seed)
    with Run.open(RUNS / f"seed={seed}", SETTINGS, seed=seed) as run:  # probe
        ends.append(train(seed, y, probe, run))
        run.finish()
    if seed == 0:
        print(cost(probe, ends[0]))

# %% [markdown]
# ## It changed nothing
#
# The probe reads parameters, so a run without it ends at the same bits. The step is another matter:
# `co.mean(gradients)` is the gradient of the mean loss, but the compiler may add it up in another
# order than that of `jax.grad`: the same up to rounding.

# %%
without = train(0, probe_of(0)[0])
assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(without), jax.tree.leaves(ends[0])))

some = (x[:BATCH], true[:BATCH])
plain = jax.grad(lambda params: jnp.mean(jax.vmap(loss, (None, 0))(params, some)))(without)
mean = co.mean(co.per_example_value_and_grad(loss)(without, some)[1])
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), mean, plain)

# %% [markdown]
# ## What was recorded
#
# In a terminal: `coherence show RUNS/seed=0`, or `coherence report RUNS` for a page with everything
# drawn. From Python:

# %%
print(describe(RUNS / "seed=0", width=110))

# %% [markdown]
# ## Looking
#
# **Share of the step**: $f^p = \langle g, g^p\rangle / \langle g, g\rangle$ with $g^p$ the sum over
# group p of the gradients and g that over all: how much of the step's first-order effect is due to
# p. Half of the sample is pristine, so at 1/2 the kind of label does not matter. Above 1, the other
# kind pulls against the step.
#
# **m-coherence** of a group of 250: how many of its examples an average one of them helps. 1 when
# all are orthogonal.
#
# **alpha, unbiased**: the same question without the size of the sample in it, by which a batch of
# 100 and a sample of 500 can be compared. It is |mean|² / (|mean|² + variance), both unbiased
# (`noise_squared_norm`, `noise_trace`). One batch says next to nothing, and a mean of ratios is
# biased: both are added up over the steps of a window first, and divided last.

# %%
GREEN, VERMILION, BLUE, GREY = "#009E73", "#D55E00", "#0072B2", "#555555"
records = [Run.read(RUNS / f"seed={seed}").records() for seed in range(SEEDS)]


def read(name):
    """`(steps, values [seeds, steps, ...])` of a recorded quantity."""
    found = [
        [(record["step"], record[name]) for record in one if name in record] for one in records
    ]
    return np.array([t for t, _ in found[0]]), np.array(
        [[value for _, value in one] for one in found]
    )


def band(axes, steps, values, label, colour, logarithmic=False):
    """Mean over seeds with its 95 % t interval; of the logarithms where asked."""
    values = np.log(values) if logarithmic else values
    mean, low, high = np.array([interval(column) for column in values.T.tolist()]).T
    mean, low, high = np.exp((mean, low, high)) if logarithmic else (mean, low, high)
    steps = np.maximum(steps, 0.7)  # step 0 has a place on a logarithmic axis
    axes.plot(steps, mean, color=colour, label=label)
    axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)


def pooled(probe, edges):
    """Unbiased alpha, pooled over the steps from one edge to the next: [seeds, windows]."""
    steps, signal = read(f"{probe}/noise_squared_norm")
    _, trace = read(f"{probe}/noise_trace")
    inside = [(steps >= a) & (steps < b) for a, b in pairwise(edges)]
    return np.stack([signal[:, w].sum(1) / (signal + trace)[:, w].sum(1) for w in inside], 1)


steps, shares = read("train/shares_by_group")
_, coherence = read("train/m_coherence_by_group")
EDGES = np.array([0, 3, 10, 30, 100, 200, STEPS])
middles = np.sqrt(np.maximum(EDGES[:-1], 1) * EDGES[1:])
batches, sample = pooled("batch", EDGES), pooled("train", EDGES)

figure, (whose, groups, sizes) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
for i, (label, colour) in enumerate([("pristine", GREEN), ("corrupt", VERMILION)]):
    band(whose, steps, shares[:, :, i], label, colour)
    band(groups, steps, coherence[:, :, i], label, colour, logarithmic=True)
band(sizes, middles, batches, f"batches, m = {BATCH}", GREY)
band(sizes, middles, sample, f"fixed sample, m = {2 * GROUP}", BLUE)
for axes, landmark in ((whose, 0.5), (groups, 1), (sizes, 0)):
    axes.axhline(landmark, color="black", linewidth=0.8, linestyle=":")
whose.set(ylabel="share of the step", title="Who makes the step")
groups.set(
    yscale="log", ylabel=f"m-coherence, m = {GROUP}", title="Who agrees (dotted: orthogonal)"
)
sizes.set(
    ylabel="alpha, unbiased, pooled over a window", title="Read off the batches, and off the sample"
)
for axes in (whose, groups, sizes):
    axes.set(xscale="log", xlabel="step")
    axes.legend(fontsize=7)
plt.show()

# %%
show = lambda found: "{:.2g} [{:.2g}, {:.2g}]".format(*found)
print("\n  step    pristine share of the step    ratio of m-coherences, pristine to corrupt")
for t in (0, 3, 10, 30, 90, 200, STEPS):
    i = int(np.argmin(abs(steps - t)))
    ratio = np.exp(interval(np.log(coherence[:, i, 0] / coherence[:, i, 1]).tolist()))
    print(f"{steps[i]:>6}    {show(interval(shares[:, i, 0].tolist())):>26}    {show(ratio):>26}")
print("\n     steps    alpha, unbiased: of the batches    of the sample")
for i, (a, b) in enumerate(pairwise(EDGES)):
    print(
        f"{a:>4} - {b - 1:<3}    {show(interval(batches[:, i].tolist())):>28}    "
        f"{show(interval(sample[:, i].tolist())):>28}"
    )

# %% [markdown]
# What these numbers say, of four seeds of this small net with momentum, on digits of 8 x 8 pixels:
#
# - Early, at steps 3 and 10, the pristine half of the sample makes more than half of the step;
#   late, at 226 and 400, the corrupt half does. In between the spread over seeds is as large as the
#   effect. A share is a ratio of sums over one step: it tells of that step.
# - A pristine example helps about twice as many of its kind as a corrupt one does of its own, once
#   training has begun.
# - What the batches say, at no further pass, overlaps with what the sample says in every window, in
#   the last one only just. They need not agree closely: batches hold 55 % pristine examples, the
#   sample half, and few readings of the sample fall into a window. The batches are free and noisy;
#   the sample is the same at every step, knows its groups, and costs what `cost` printed, each time
#   that it is due.
