# %% [markdown]
# # Measure coherence of your own model
#
# Half of the training labels of a small data set are made random. A network fits them all in the
# end. Do its per-example gradients tell, on the way, which examples are learned together and which
# are memorized one by one?
#
# What you need for any model of yours: a function of the parameters and ONE example that returns
# its loss. The rest is one call.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

import coherence as co
from coherence.lab.claims import interval
from coherence.lab.data import corrupt_labels

STEPS, SEEDS, BATCH = 1500, 4, 100
WIDTH = 128

# %% [markdown]
# ## Data: handwritten digits, half of the labels permuted
#
# `corrupt` marks the examples whose label really changed; about a tenth of the permuted ones keep
# theirs by luck and stay *pristine*.

# %%
images, digits = load_digits(return_X_y=True)
images, digits = (images / 16).astype(np.float32), digits.astype(np.int32)
order = np.random.default_rng(0).permutation(len(digits))
x, true, x_test, y_test = (
    images[order[:1400]],
    digits[order[:1400]],
    images[order[1400:]],
    digits[order[1400:]],
)

# %% [markdown]
# ## A model as a stranger would write it
#
# Flax NNX. Nothing in it knows about coherence. Split it with a filter, so that only parameters are
# differentiated, and merge it inside.


# %%
class Net(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(64, WIDTH, rngs=rngs)
        self.second = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, 10, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.second(nnx.relu(self.first(x)))))


graphdef, _, rest = nnx.split(Net(nnx.Rngs(0)), nnx.Param, ...)


def loss(params, example):
    """The loss of ONE example: no batch axis, no mean."""
    image, label = example
    logits = nnx.merge(graphdef, params, rest)(image)
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, label)


# %% [markdown]
# ## First, distrust
#
# Eight examples the slow way: `vmap(grad)`, then the definition in numpy, in float64.

# %%
per_example = co.per_example_value_and_grad(loss)
params = nnx.state(Net(nnx.Rngs(0)), nnx.Param)
eight = (x[:8], true[:8])
_, gradients = per_example(params, eight)
rows = jax.vmap(jax.grad(loss), (None, 0))(params, eight)
flat = np.concatenate(
    [np.asarray(leaf, np.float64).reshape(8, -1) for leaf in jax.tree.leaves(rows)], 1
)
by_definition = 8 * np.sum(flat.mean(0) ** 2) / np.mean(np.sum(flat**2, 1))
np.testing.assert_allclose(co.m_coherence(gradients), by_definition, rtol=1e-4)
print(
    f"m-coherence of 8 examples: {co.m_coherence(gradients):.4f}, by definition {by_definition:.4f}"
)

# %% [markdown]
# ## What is measured
#
# For g_i, the gradient of the loss of example i, and a group of m examples,
#
# $$\text{m-coherence} = m\,\frac{\|\frac1m\sum_i g_i\|^2}{\frac1m\sum_i\|g_i\|^2}:$$
#
# how many examples of the group, itself included, an average example's gradient helps. 1 when they
# are pairwise orthogonal, m when they are all equal, near 0 at a stationary point of the group's
# loss.
#
# Three traps, and how the cell below avoids them:
#
# 1. **m.** m-coherence has the floor 1 (sampling noise), and once it is well above 1 it grows with
#    m. Compare equal m only. The fixed sample has as many pristine as corrupt examples, and as many
#    again in each group of the *null model*, where groups are drawn by lot.
# 2. **Ratios.** The measurement jumps from step to step, and a mean of ratios is biased. So the two
#    sums that it is made of, `moments`, are added up over a few consecutive steps and divided last.
#    The sums add over layers, too: the network needs no second measurement.
# 3. **One run is one draw.** Everything is repeated over seeds, and drawn with 95 % intervals.

# %%
GROUP = 250  # examples in each group
WINDOW = 10  # consecutive steps pooled
PROBES = (0, 10, 20, 40, 80, 150, 300, 500, 700, 900, 1100, 1300, 1490)  # where windows begin


@jax.jit
def measure(params, sample, groups):
    """`{layer: Moments}` of the groups, and `Moments` of all.

    Each entry is [2, 2]: by labels and by lot; within them False, True.
    """
    _, gradients = per_example(params, sample)
    both = [co.metrics.moments(gradients, by="layer", groups=g) for g in groups]
    return jax.tree.map(lambda *entries: jnp.stack(entries), *both), co.metrics.moments(gradients)


def m_coherence(moments, m=GROUP):
    return m * np.asarray(moments.squared_norm_of_mean / moments.mean_squared_norm)


def add(*many):
    return jax.tree.map(lambda *entries: sum(entries), *many)


def cosine(moments, everyone):
    """Of the angle between the mean gradients p and c of pristine and corrupt.

    From |(p + c) / 2|^2 = (|p|^2 + |c|^2 + 2 p.c) / 4.
    """
    p, c = moments.squared_norm_of_mean[0]
    return (4 * everyone.squared_norm_of_mean - p - c) / (2 * np.sqrt(p * c))


# %% [markdown]
# ## Training: plain optax
#
# The loop is the stranger's own. `measure` only reads the parameters.

# %%
optimizer = optax.sgd(0.1, momentum=0.9)


@jax.jit
def step(params, state, batch):
    mean_loss = lambda p: jnp.mean(jax.vmap(loss, (None, 0))(p, batch))
    updates, state = optimizer.update(jax.grad(mean_loss)(params), state, params)
    return optax.apply_updates(params, updates), state


@jax.jit
def accuracy(params, x, y):
    return jnp.mean(jnp.argmax(jax.vmap(nnx.merge(graphdef, params, rest))(x), -1) == y)


def train(seed):
    """One seed: accuracies [probes, 3], cosine [probes] and m-coherence.

    That of the net is [probes, 2, 2], that of the layers {layer: ...}.
    """
    rng = np.random.default_rng(seed)
    y, corrupt = corrupt_labels(true, 0.5, seed=seed)
    chosen = np.concatenate(
        [rng.choice(np.flatnonzero(corrupt == g), GROUP, replace=False) for g in (False, True)]
    )
    sample, by_label = (x[chosen], y[chosen]), corrupt[chosen]
    groups = (by_label, rng.permutation(by_label))

    params = nnx.state(Net(nnx.Rngs(seed)), nnx.Param)
    state = optimizer.init(params)
    accuracies, cosines, net, layers = [], [], [], []
    for t in range(STEPS):
        if t in PROBES:
            parts = [(x[~corrupt], y[~corrupt]), (x[corrupt], y[corrupt]), (x_test, y_test)]
            accuracies.append([float(accuracy(params, *part)) for part in parts])
            window = []
        if len(accuracies) > len(net):
            window.append(measure(params, sample, groups))
            if len(window) == WINDOW:
                pooled, everyone = add(*window)
                whole = add(*pooled.values())
                cosines.append(cosine(whole, everyone))
                net.append(m_coherence(whole))
                layers.append({name: m_coherence(one) for name, one in pooled.items()})
        batch = rng.choice(len(y), BATCH, replace=False)
        params, state = step(params, state, (x[batch], y[batch]))
    return (
        np.array(accuracies),
        np.array(cosines),
        np.array(net),
        {name: np.array([one[name] for one in layers]) for name in layers[0]},
    )


runs = [train(seed) for seed in range(SEEDS)]
accuracies, cosines, net = (
    np.stack([run[i] for run in runs]) for i in range(3)
)  # [seeds, probes, ...]
layers = {name: np.stack([run[3][name] for run in runs]) for name in runs[0][3]}

# %% [markdown]
# ## Looking

# %%
BLUE, GREEN, VERMILION, GREY = "#0072B2", "#009E73", "#D55E00", "#777777"
STYLES = ("-", "--", ":")


def band(axes, values, label, colour, style="-", logarithmic=False):
    """Mean over seeds of `values` [seeds, probes] with a 95 % t interval; perhaps of logarithms."""
    values = np.log(values) if logarithmic else values
    mean, low, high = np.array([interval(column) for column in values.T.tolist()]).T
    mean, low, high = np.exp((mean, low, high)) if logarithmic else (mean, low, high)
    at = np.maximum(PROBES, 0.7)  # step 0 has a place on a logarithmic axis
    axes.plot(at, mean, style, color=colour, label=label)
    axes.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0)


figure, (fit, whole, split) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
for i, (label, colour) in enumerate(
    [("pristine", GREEN), ("corrupt", VERMILION), ("test (true labels)", BLUE)]
):
    band(fit, accuracies[:, :, i], label, colour)
for i, (label, colour) in enumerate([("pristine", GREEN), ("corrupt", VERMILION)]):
    band(whole, net[:, :, 0, i], label, colour, logarithmic=True)
    for (name, values), style in zip(layers.items(), STYLES):
        band(split, values[:, :, 0, i], f"{label}, {name}", colour, style, logarithmic=True)
band(whole, net[:, :, 1].mean(-1), "groups by lot", GREY, "--", logarithmic=True)
for axes in (whole, split):
    axes.axhline(1, color="black", linewidth=0.8, linestyle=":")
    axes.set(yscale="log", ylabel=f"m-coherence, m = {GROUP}, {WINDOW} steps pooled")
fit.set(ylabel="accuracy", title="Fitting")
whole.set_title("The network (dotted: orthogonal)")
split.set_title("Layer by layer")
for axes in (fit, whole, split):
    axes.set(xscale="log", xlabel="step")
    axes.legend(fontsize=7)
plt.show()

# %% [markdown]
# ## What the numbers mean
#
# Pristine against corrupt at the same step and the same m: the ratio of their m-coherences, with
# its interval over seeds, beside the ratio of two groups drawn by lot; and the cosine of the angle
# between the mean gradients of the two kinds.

# %%
print(
    "  step  fitted: pristine, corrupt      ratio of m-coherences           ratio by lot         "
    "        cosine"
)
for t in (0, 10, 80, 300, 700, 1490):
    i = PROBES.index(t)
    ratios = (
        np.exp2(interval(np.log2(net[:, i, g, 0] / net[:, i, g, 1]).tolist())) for g in (0, 1)
    )
    fitted = "{:>6.0%}, {:>4.0%}".format(*accuracies[:, i, :2].mean(0))
    cells = [
        "{:>6.2f} [{:.2f}, {:.2f}]".format(*values)
        for values in (*ratios, interval(cosines[:, i].tolist()))
    ]
    print(f"{t:>6}  {fitted:>25}  ", "       ".join(cells))

# %% [markdown]
# - *Pristine* examples help each other more from the first step on: they share what makes a three a
#   three. They are fitted first.
# - *Corrupt* gradients are not orthogonal either. Their coherence rises long before they are
#   fitted, while their mean gradient points *against* that of the pristine ones (the cosine). One
#   reading, not a measurement: what they share is an objection to confident answers. The test
#   accuracy falls while they are fitted. Coherence says that examples want the same step, not what
#   for.
# - *Groups by lot* mix the two kinds, which pull against each other: they are less coherent than
#   either. Their ratio shows what chance alone does to such a comparison. An effect inside that
#   interval is none.
# - *Late*, when everything is fitted, gradients vanish and coherence falls: the numbers describe a
#   few hard examples. A value below 1 is no error: near a minimum gradients cancel.
#
# Scale: 1,400 images of 8 x 8 pixels, a small MLP, SGD with momentum. What holds for your network,
# your network has to say.
#
# ## With your own model
#
# - Anything works that can be called on one example: Linen, Equinox, plain functions
#   (`docs/per_example_gradients.md`).
# - Dropout: put a key per example into the batch. Measure with it or without; say which.
# - Batch norm: freeze its statistics, or measure mini-batch gradients with
#   `co.metrics.alpha_from_minibatches`.
# - A `RecomputedWarning` names the layers without a fast rule: exact, but slow.
# - Groups of different sizes: `co.metrics.alpha_unbiased` has no floor. It can be a little below 0;
#   leave it there.
