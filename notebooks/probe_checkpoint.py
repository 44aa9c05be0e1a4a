# %% [markdown]
# # A saved checkpoint, after the fact
#
# A run is over; its parameters were saved at a few steps, and nobody measured anything. Which
# examples of the training set does each checkpoint pull together, in which layers, and which single
# examples does the next step come from? Everything is in the parameters and the data: no training,
# no optimizer state.
#
# What it takes is marked with `# probe`.

# %%
import tempfile
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import linen
from sklearn.datasets import load_digits

import coherence as co
from coherence.lab.claims import interval
from coherence.lab.data import corrupt_labels
from coherence.probes import Probe

FOLDER = Path(tempfile.mkdtemp())
SAVED, BATCH, WIDTH = (0, 20, 100, 500), 100, 128

# %% [markdown]
# ## The run of which checkpoints are left
#
# Flax Linen and Orbax; half of the labels random. Stands in for yours.

# %%
images, digits = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(digits))
x, true = (images[order[:1400]] / 16).astype(np.float32), digits[order[:1400]].astype(np.int32)
y, corrupt = corrupt_labels(true, 0.5, seed=0)
cross_entropy = optax.losses.softmax_cross_entropy_with_integer_labels


class Net(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(10, name="head")(linen.relu(linen.Dense(WIDTH, name="hidden")(x)))


optimizer = optax.sgd(0.1, momentum=0.9)


@jax.jit
def step(params, state, x, y):
    updates, state = optimizer.update(
        jax.grad(lambda p: cross_entropy(Net().apply({"params": p}, x), y).mean())(params), state
    )
    return optax.apply_updates(params, updates), state


params = Net().init(jax.random.key(0), x[:1])["params"]
state, rng = optimizer.init(params), np.random.default_rng(0)
with ocp.StandardCheckpointer() as checkpointer:
    for t in range(max(SAVED) + 1):
        if t in SAVED:
            checkpointer.save(FOLDER / f"step={t}", params)
        if t < max(SAVED):
            batch = rng.choice(len(y), BATCH, replace=False)
            params, state = step(params, state, x[batch], y[batch])

# %% [markdown]
# ## After the fact
#
# `measure` takes the loss of one example, parameters, and a data set of any size: alpha of all of
# it, by layer, of pristine and of corrupt, with 95 % intervals. `alpha_unbiased` takes the floor
# 1/m out of them, or the smaller group would look more coherent. A `Probe` with `quantities="full"`
# reads everything else, some of it example by example for a fixed few.

# %%
loss = lambda params, example: cross_entropy(
    Net().apply({"params": params}, example[0]), example[1]
)  # probe: of ONE example
probe = Probe(loss, (x, y), quantities="full", groups=corrupt, few=300, seed=1)  # probe
measured, readings = {}, {}
shapes = jax.eval_shape(lambda: params)
with ocp.StandardCheckpointer() as checkpointer:
    for t in SAVED:
        saved = checkpointer.restore(FOLDER / f"step={t}", shapes)
        measured[t] = co.measure(
            loss, saved, (x, y), batch_size=700, by="layer", groups=corrupt
        ).alpha_unbiased  # probe
        readings[t] = probe(saved)  # probe

# %% [markdown]
# ## What there is to read
#
# One value each, of all 1,400 examples (of pairs: of the 300).

# %%
names = [name for name, value in readings[0].items() if isinstance(value, float)]
print(f"{'step':<38}" + "".join(f"{t:>10}" for t in SAVED))
for name in names:
    print(
        f"{name.removeprefix('train/'):<38}" + "".join(f"{readings[t][name]:>10.3g}" for t in SAVED)
    )

# %% [markdown]
# ## Looking
#
# Above: alpha by layer, with intervals that say what another draw of examples would do to it. There
# is one run here: what another seed of the training would do is not in them.
#
# Below: the examples that make the step, and those against which it is made. An example's
# *contribution* is $c_i = g_i\cdot\bar g / \|\bar g\|^2$: 1 for as much as the average example
# brings, negative where the mean step raises its loss.

# %%
GREEN, VERMILION = "#009E73", "#D55E00"
shown = probe.shown()  # the fixed few: inputs, labels, group, and their places in the data
LAYERS, LOOKED_AT, MOST = ("hidden", "head"), (20, 500), 10

figure = plt.figure(figsize=(12, 7.2), layout="constrained")
top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1.25))
panels = top.subplots(1, 2, sharey=True)
for axes, layer in zip(panels, LAYERS):
    for group, (label, colour) in enumerate([("pristine", GREEN), ("corrupt", VERMILION)]):
        value, low, high = (
            np.array([getattr(measured[t], bound)[layer][group] for t in SAVED])
            for bound in ("value", "low", "high")
        )
        places = np.arange(len(SAVED)) + 0.1 * group
        axes.errorbar(
            places,
            value,
            (value - low, high - value),
            fmt="o",
            color=colour,
            label=label,
            markersize=4,
            capsize=3,
        )
    axes.axhline(0, color="black", linewidth=0.8, linestyle=":")
    axes.set(xlabel="step of the checkpoint", title=f"Layer {layer}")
    axes.set_xticks(range(len(SAVED)), SAVED)
panels[0].set(ylabel="alpha, unbiased")
panels[0].legend(fontsize=8)

rows = bottom.subplots(2 * len(LOOKED_AT), MOST)
for i, t in enumerate(LOOKED_AT):
    contributions = np.array(readings[t]["train/contributions"])
    order = np.argsort(-contributions)
    for pictures, chosen, words in zip(
        rows[2 * i :], (order[:MOST], order[::-1][:MOST]), ("makes it", "against it")
    ):
        for axes, k in zip(pictures, chosen):
            axes.imshow(shown["inputs"][k].reshape(8, 8), cmap="gray_r")
            axes.set_title(
                f"as {shown['labels'][k]}: {contributions[k]:.1f}",
                fontsize=7,
                color=(GREEN, VERMILION)[shown["group"][k]],
            )
            axes.set(xticks=[], yticks=[])
        pictures[0].set_ylabel(f"step {t}:\n{words}", fontsize=8)
bottom.suptitle("Label and contribution: green pristine, red corrupt", fontsize=9)
plt.show()

# %%
print("layer     step    alpha, unbiased: of the pristine    of the corrupt")
for layer in LAYERS:
    for t in SAVED:
        found = measured[t].value[layer], measured[t].low[layer], measured[t].high[layer]
        cells = ["{:.4f} [{:.4f}, {:.4f}]".format(*one) for one in zip(*found)]
        print(f"{layer:<8}{t:>6}    {cells[0]:>32}    {cells[1]}")

# %%
show = lambda values: "{:.2f} [{:.2f}, {:.2f}]".format(
    *interval(values.tolist())
)  # over examples, of this one run
print(
    "\n  step    mean contribution of the pristine    of the corrupt          pristine among the "
    "ten that make the step, and against it"
)
pristine = shown["group"] == 0
for t in SAVED:
    contributions = np.array(readings[t]["train/contributions"])
    order = np.argsort(-contributions)
    first, last = (pristine[order[ends]].sum() for ends in (slice(MOST), slice(-MOST, None)))
    most = f"{first:>19}, {last}   (of all {pristine.mean():.0%})"
    both = [show(contributions[pristine]), show(contributions[~pristine])]
    print(f"{t:>6}    {both[0]:>33}    {both[1]:<20}{most}")

# %% [markdown]
# What these numbers say, of the checkpoints of this one run:
#
# - In both layers the pristine examples agree more than the corrupt ones at every checkpoint: the
#   intervals do not overlap. Those of the corrupt reach 0 before training and no longer afterwards.
# - Before training an average pristine example brings more to the step than an average corrupt one.
#   At the later checkpoints the intervals of the two overlap: these 300 examples do not tell them
#   apart. Those that the step is made against are nearly all corrupt, each time.
#
# For another seed's checkpoints call `probe` with their parameters: nothing is compiled again.
# Checkpoints of other programs need one thing more: a function that reads them into the tree that
# your loss takes.
