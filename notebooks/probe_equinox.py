# %% [markdown]
# # Probes in Equinox's usual loop
#
# Half of the labels are random. Do the gradients of pristine and of corrupt examples point the same
# way, opposite ways, or have they nothing to do with each other, and how does that change as the
# loss falls? Measured where the training loss has come down to given shares of its initial value,
# so that fast and slow runs are compared equally far on; for that the probe is shown the loss that
# the step returns.
#
# What is added to the loop is marked with `# probe`.

# %%
import equinox as eqx
import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

import coherence as co
from coherence.lab.claims import interval
from coherence.lab.data import corrupt_labels
from coherence.probes import AtLoss, Probe, Quantity

STEPS, SEEDS, BATCH, GROUP = 560, 4, 100, 250

images, digits = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(digits))
x, true = (
    (images[order[:1400]] / 16).astype(np.float32).reshape(-1, 1, 8, 8),
    digits[order[:1400]].astype(np.int32),
)
cross_entropy = optax.losses.softmax_cross_entropy_with_integer_labels

# %% [markdown]
# ## Your model and step
#
# The whole model is the pytree; `eqx.filter_jit` and `eqx.filter_value_and_grad` sort out what in
# it is an array.


# %%
class Net(eqx.Module):
    convolution: eqx.nn.Conv2d
    hidden: eqx.nn.Linear
    head: eqx.nn.Linear

    def __init__(self, key):
        one, two, three = jax.random.split(key, 3)
        self.convolution = eqx.nn.Conv2d(1, 8, kernel_size=3, stride=2, padding=1, key=one)
        self.hidden = eqx.nn.Linear(128, 128, key=two)
        self.head = eqx.nn.Linear(128, 10, key=three)

    def __call__(self, x):
        return self.head(jax.nn.relu(self.hidden(jax.nn.relu(self.convolution(x)).ravel())))


optimizer = optax.adam(5e-3)


@eqx.filter_jit
def make_step(model, state, x, y):
    loss_fn = lambda model: cross_entropy(jax.vmap(model)(x), y).mean()
    value, grads = eqx.filter_value_and_grad(loss_fn)(model)
    updates, state = optimizer.update(grads, state, model)
    return eqx.apply_updates(model, updates), state, value


# %% [markdown]
# ## Your loop, with a probe in it
#
# `eqx.partition` takes the parameters out, `eqx.combine` puts them back for one example. Instead of
# a preset, three quantities are asked for: a name, a function, what it reads. Whatever is in
# `coherence.metrics`, or a function of your own, can stand there.

# %%
_, static = eqx.partition(Net(jax.random.key(0)), eqx.is_inexact_array)  # probe
loss = lambda params, example: cross_entropy(
    eqx.combine(params, static)(example[0]), example[1]
)  # probe: of ONE example
LEVELS = (0.9, 0.8, 0.7, 0.6, 0.5)  # of the initial loss
MEASURED = (  # probe
    Quantity("loss", lambda view: view.loss, "view"),
    Quantity("m_coherence", co.m_coherence, "groups"),
    Quantity("between", co.metrics.alpha_between, "groups"),
)


def train(seed, probed=True):
    y, corrupt = corrupt_labels(true, 0.5, seed=seed)
    rng = np.random.default_rng(seed)
    sample = np.concatenate(
        [rng.choice(np.flatnonzero(corrupt == g), GROUP, replace=False) for g in (False, True)]
    )
    probe = Probe(
        loss,
        (x[sample], y[sample]),
        groups=corrupt[sample],
        quantities=MEASURED,
        when=AtLoss(LEVELS),
    )  # probe

    model = Net(jax.random.key(seed))
    state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    losses, readings, value = [], [], None
    for t in range(STEPS + 1):
        if probed and probe.due(t, STEPS, loss=value):  # probe
            readings.append({"step": t, **probe(eqx.filter(model, eqx.is_inexact_array))})  # probe
        if t < STEPS:
            batch = rng.choice(len(y), BATCH, replace=False)
            model, state, value = make_step(model, state, x[batch], y[batch])
            losses.append(float(value))
    return model, losses, readings


runs = [train(seed) for seed in range(SEEDS)]
print(
    "read before the steps", *([reading["step"] for reading in readings] for _, _, readings in runs)
)
assert all(
    len(readings) == len(LEVELS) + 2 for _, _, readings in runs
)  # 0, each level, the last step

# %% [markdown]
# A probe with `AtLoss` remembers the losses that it was shown, so each run gets a probe of its own;
# nothing is compiled again for it. It changed nothing: without it the run ends at the same bits.

# %%
without, losses, _ = train(0, probed=False)
assert losses == runs[0][1]
assert all(
    np.array_equal(a, b) for a, b in zip(jax.tree.leaves(without), jax.tree.leaves(runs[0][0]))
)

# %% [markdown]
# ## Looking
#
# **m-coherence** within a group of 250: how many of its examples an average one of them helps; 1
# when they are orthogonal.
#
# **alpha between** the groups: $\bar g_a\cdot\bar g_b / \sqrt{q_a q_b}$, with q the mean squared
# norm: 0 where the two have nothing to do with each other, negative where a step that lowers the
# loss of one raises that of the other. No example meets itself, so it has no floor: of unrelated
# groups it is 0 on average, at any m.

# %%
GREEN, VERMILION, BLUE = "#009E73", "#D55E00", "#0072B2"
depth = np.array([1, *LEVELS])
at_levels = [
    readings[: len(depth)] for _, _, readings in runs
]  # without the last step, which is at no level
coherence = np.array([[reading["train/m_coherence"] for reading in one] for one in at_levels])
between = np.array([[reading["train/between"][0][1] for reading in one] for one in at_levels])


def band(axes, values, label, colour, logarithmic=False):
    """Mean over seeds of `values` [seeds, levels] with a 95 % t interval; perhaps of logarithms."""
    values = np.log(values) if logarithmic else values
    mean, low, high = np.array([interval(column) for column in values.T.tolist()]).T
    mean, low, high = np.exp((mean, low, high)) if logarithmic else (mean, low, high)
    axes.plot(depth, mean, "o-", color=colour, label=label, markersize=3)
    axes.fill_between(depth, low, high, color=colour, alpha=0.2, linewidth=0)


figure, (fit, within, across) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
for _, losses, readings in runs:
    fit.plot(
        np.arange(5, STEPS, 10),
        np.reshape(losses, (-1, 10)).mean(1),
        color="#777777",
        linewidth=0.8,
    )
    fit.plot(
        [reading["step"] for reading in readings],
        [reading["train/loss"] for reading in readings],
        "o",
        color=BLUE,
        markersize=3,
    )
fit.set(xlabel="step", ylabel="loss", title="Each seed: batches, and the sample where read")
for i, (label, colour) in enumerate([("pristine", GREEN), ("corrupt", VERMILION)]):
    band(within, coherence[:, :, i], label, colour, logarithmic=True)
band(across, between, "pristine with corrupt", BLUE)
within.set(yscale="log", ylabel=f"m-coherence, m = {GROUP}", title="Within (dotted: orthogonal)")
across.set(ylabel="alpha between", title="Between (dotted: unrelated)")
for axes, landmark in ((within, 1), (across, 0)):
    axes.axhline(landmark, color="black", linewidth=0.8, linestyle=":")
    axes.set(xlabel="training loss, as share of its initial value")
    axes.invert_xaxis()
    axes.legend(fontsize=7)
plt.show()

# %%
show = lambda values, digits: "{:.{d}f} [{:.{d}f}, {:.{d}f}]".format(
    *interval(values.tolist()), d=digits
)
print(
    "loss, of initial    m-coherence: pristine    corrupt                  pristine over corrupt"
    "    alpha between"
)
for i, level in enumerate(depth):
    pristine, wrong = coherence[:, i].T
    ratio = "{:.1f} [{:.1f}, {:.1f}]".format(
        *np.exp(interval(np.log(pristine / wrong).tolist()))
    )  # paired by seed
    print(
        f"{level:>16.0%}    {show(pristine, 1):<24}    {show(wrong, 1):<21}    {ratio:<21}    "
        f"{show(between[:, i], 3)}"
    )

# %% [markdown]
# What these numbers say, of four seeds of this small net on digits of 8 x 8 pixels:
#
# - At the start the interval of alpha between the two kinds includes 0. As the loss comes down,
#   each agrees more with its own, and they pull against each other: from 90 % on it is negative,
#   most where 80 % and 70 % of the loss are left.
# - Past that, everything comes down again, within and between. Whether that is because of what has
#   been learned or because gradients of fitted examples vanish, these curves alone do not say.
# - Pristine examples agree more than corrupt ones at every level (the ratio, paired by seed). From
#   90 % on the corrupt ones are far from orthogonal, too.
