# %% [markdown]
# # Probes in Flax's usual loops
#
# Where in a network do per-example gradients agree, and does that change while it learns? A probe
# reads it layer by layer off a fixed sample, in a loop of Flax NNX, with its module,
# `nnx.Optimizer` and `nnx.jit`, and in one of Linen, with its `TrainState`. What is added is marked
# with `# probe`.
#
# A probe needs one thing of you: the loss of one example as a function of parameters. The rest of
# the loop stays as it is.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import linen, nnx
from flax.training.train_state import TrainState
from sklearn.datasets import load_digits

from coherence.lab.claims import interval
from coherence.probes import Epochs, LogSpaced, Probe

STEPS, SEEDS, BATCH, WIDTH = 200, 4, 100, 128

images, digits = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(digits))
x, y = (images[order[:1400]] / 16).astype(np.float32), digits[order[:1400]].astype(np.int32)
cross_entropy = optax.losses.softmax_cross_entropy_with_integer_labels

# %% [markdown]
# ## Flax NNX: your module, your step
#
# Nothing here knows of probes. The loss of the batch is the one you would write.


# %%
class Net(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(64, WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, 10, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)

    def __call__(self, x):
        return self.head(self.dropout(nnx.relu(self.hidden(x))))


@nnx.jit
def train_step(model, optimizer, x, y):
    loss_fn = lambda model: cross_entropy(model(x), y).mean()
    value, grads = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, grads)
    return value


# %% [markdown]
# ## The probe
#
# `nnx.split` with the filter `nnx.Param` takes the parameters out of the module; merge them in
# again for one example. What is not a parameter is split off *now* and stays as it is: fine for the
# keys of a dropout that is switched off (`nnx.view`), wrong for anything that changes in training
# and that the loss reads.

# %%
graphdef, _, rest = nnx.split(
    nnx.view(Net(nnx.Rngs(0)), deterministic=True), nnx.Param, ...
)  # probe


def nnx_loss(params, example):  # probe
    """The loss of ONE example: no batch axis, no mean."""
    return cross_entropy(nnx.merge(graphdef, params, rest)(example[0]), example[1])  # probe


def train(seed, probe=None):
    rng = np.random.default_rng(seed)
    model = Net(nnx.Rngs(seed))
    optimizer = nnx.Optimizer(model, optax.sgd(0.2), wrt=nnx.Param)
    readings = []
    for t in range(STEPS + 1):
        if probe is not None and probe.due(t, STEPS):  # probe
            readings.append({"step": t, **probe(nnx.state(model, nnx.Param))})  # probe
        if t < STEPS:
            batch = rng.choice(len(y), BATCH, replace=False)
            train_step(model, optimizer, x[batch], y[batch])
    return nnx.state(model, nnx.Param), readings


probe = Probe(nnx_loss, (x[:500], y[:500]), when=LogSpaced(6))  # probe
nnx_runs = [train(seed, probe) for seed in range(SEEDS)]

# %% [markdown]
# It changed nothing: a run without the probe ends at the same bits, those of the dropout's counter
# too, or the masks would differ.

# %%
without, _ = train(0)
assert all(
    np.array_equal(a, b) for a, b in zip(jax.tree.leaves(without), jax.tree.leaves(nnx_runs[0][0]))
)

# %% [markdown]
# ## Flax Linen: a `TrainState`
#
# Here parameters are a dict already, and the probe's loss is one line. Another schedule: at the end
# of each epoch, for which it needs to know the number of steps in one.


# %%
class Linen(linen.Module):
    @linen.compact
    def __call__(self, x, train=False):
        x = linen.relu(linen.Dense(WIDTH, name="hidden")(x))
        return linen.Dense(10, name="head")(linen.Dropout(0.1, deterministic=not train)(x))


@jax.jit
def linen_step(state, key, x, y):
    def loss_fn(params):
        return cross_entropy(
            state.apply_fn({"params": params}, x, train=True, rngs={"dropout": key}), y
        ).mean()

    return state.apply_gradients(grads=jax.grad(loss_fn)(state.params))


linen_loss = lambda params, example: cross_entropy(
    Linen().apply({"params": params}, example[0]), example[1]
)  # probe
PER_EPOCH = len(y) // BATCH


def train_linen(seed, probe):
    rng, key, optimizer = np.random.default_rng(seed), jax.random.key(seed), optax.sgd(0.2)
    state = TrainState.create(
        apply_fn=Linen().apply, params=Linen().init(key, x[:1])["params"], tx=optimizer
    )
    readings = []
    for t in range(STEPS + 1):
        if probe.due(t, STEPS, per_epoch=PER_EPOCH):  # probe
            readings.append({"step": t, **probe(state.params)})  # probe
        if t < STEPS:
            batch = rng.choice(len(y), BATCH, replace=False)
            state = linen_step(state, jax.random.fold_in(key, t), x[batch], y[batch])
    return state.params, readings


linen_probe = Probe(linen_loss, (x[:500], y[:500]), when=Epochs(1))  # probe
linen_runs = [train_linen(seed, linen_probe) for seed in range(SEEDS)]

# %% [markdown]
# ## Looking
#
# m-coherence of a layer: how many of the 500 examples of the sample an average one helps, if only
# that layer moves. 1 when the examples' gradients are orthogonal, 500 when they are equal; near a
# minimum of the sample's loss it falls, below 1 too. The optimizer is plain SGD: momentum makes
# these curves swing from step to step.

# %%
COLOURS = {"hidden": "#0072B2", "head": "#E69F00"}


def band(axes, steps, values, label, colour):
    """Geometric mean over seeds of `values` [seeds, steps] with its 95 % t interval."""
    mean, low, high = np.exp(np.array([interval(column) for column in np.log(values).T.tolist()])).T
    axes.plot(
        np.maximum(steps, 0.7), mean, color=colour, label=label
    )  # step 0 has a place on a logarithmic axis
    axes.fill_between(np.maximum(steps, 0.7), low, high, color=colour, alpha=0.2, linewidth=0)


def read(runs, quantity):
    steps = np.array([reading["step"] for reading in runs[0][1]])
    return steps, [[reading[f"train/{quantity}"] for reading in readings] for _, readings in runs]


figure, (fit, *both) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
for (name, runs), axes, colour in zip(
    {"NNX": nnx_runs, "Linen": linen_runs}.items(), both, ("black", "#CC79A7")
):
    steps, losses = read(runs, "loss")
    band(fit, steps, np.array(losses), name, colour)
    steps, coherence = read(runs, "m_coherence_by_layer")
    for layer, colour in COLOURS.items():
        band(axes, steps, np.array([[at[layer] for at in one] for one in coherence]), layer, colour)
    axes.axhline(1, color="black", linewidth=0.8, linestyle=":")
    axes.set(ylabel="m-coherence, m = 500", title=f"{name}, layer by layer (dotted: orthogonal)")
fit.set(ylabel="loss of the sample, without dropout", title="Fitting")
for axes in (fit, *both):
    axes.set(xscale="log", yscale="log", xlabel="step")
    axes.legend(fontsize=7)
plt.show()

# %%
print(
    "            step    m-coherence of the hidden layer    of the head    ratio head to hidden, "
    "with its interval over seeds"
)
for name, runs in (("NNX", nnx_runs), ("Linen", linen_runs)):
    steps, coherence = read(runs, "m_coherence_by_layer")
    for t in (0, 14, 42, 112, STEPS):
        i = int(np.argmin(abs(steps - t)))
        hidden, head = (np.log([one[i][layer] for one in coherence]) for layer in COLOURS)
        ratio = np.exp(interval((head - hidden).tolist()))
        print(
            f"{name:>8}{steps[i]:>8}{np.exp(hidden.mean()):>26.1f}{np.exp(head.mean()):>20.1f}"
            f"{ratio[0]:>18.2f} [{ratio[1]:.2f}, {ratio[2]:.2f}]"
        )

# %% [markdown]
# What these numbers say, of four seeds of this small net on digits of 8 x 8 pixels:
#
# - At the start an average example helps more others through the hidden layer than through the
#   head, in both loops: the ratio's interval is below 1. At the end it includes 1.
# - Everything falls towards 1 as the sample is fitted, and swings from step to step: late, one
#   reading says little about its neighbours.
#
# **Running statistics** of a batch norm, and whatever else changes in training without being a
# parameter: the loss must not keep the value that it had when the loss was written. Hand it to the
# probe beside the parameters, `probe({"params": ..., "batch_stats": ...})`, and let the loss read
# it under `jax.lax.stop_gradient`: its gradient is zero then and counts for nothing
# (`docs/batch_norm.md`).
