# %% [markdown]
# # Back-propagation, written out
#
# The four equations in numpy, for one network of two hidden layers of tanh and a softmax; the same
# numbers from `jax.grad`; and finite differences, which are right up to an error of their own. Then
# what the equations say about per-example gradients: each is an outer product, and this project
# keeps the two factors and never the product.

# %%
from itertools import pairwise

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import coherence as co

jax.config.update("jax_enable_x64", True)  # double precision: the equations to twelve digits
SIZES, M = (64, 12, 8, 10), 40
rng = np.random.default_rng(0)
images, labels = load_digits(return_X_y=True)
chosen = rng.permutation(len(labels))[:M]
x, y = images[chosen] / 16, labels[chosen]
weights = [rng.normal(size=pair) / np.sqrt(pair[0]) for pair in pairwise(SIZES)]
biases = [rng.normal(size=n) / 10 for n in SIZES[1:]]

# %% [markdown]
# ## Forward
#
# Layer l makes the weighted sums z = a W + b of the activations a below, and from them tanh(z); the
# last layer makes probabilities. Each row is an example.


# %%
def forward(x, weights, biases):
    """The activations below each layer, and the probabilities."""
    below = [x]
    for w, b in zip(weights[:-1], biases[:-1]):
        below.append(np.tanh(below[-1] @ w + b))
    z = below[-1] @ weights[-1] + biases[-1]
    odds = np.exp(z - z.max(1, keepdims=True))
    return below, odds / odds.sum(1, keepdims=True)


def losses(x, y, weights, biases):
    """Cross-entropy of each example, in nats."""
    _, p = forward(x, weights, biases)
    return -np.log(p[np.arange(len(y)), y])


# %% [markdown]
# ## Backward: four equations
#
# With d the derivative of an example's loss in the weighted sums of a layer:
#
# 1. at the top, d = p - y (the loss and the softmax, differentiated together);
# 2. one layer down, d = (d W') * g'(z), and g'(z) = 1 - tanh(z)^2;
# 3. the derivative in the biases is d;
# 4. the derivative in the weights is the outer product of a and d.
#
# A mean over examples is a mean of these outer products: one product of matrices.


# %%
def backward(x, y, weights, biases):
    """Factors of every layer's per-example gradients: the activations a, the cotangents d."""
    below, p = forward(x, weights, biases)
    cotangents = [p - np.eye(10)[y]]  # 1
    for w, a in zip(weights[:0:-1], below[:0:-1]):
        cotangents.insert(0, (cotangents[0] @ w.T) * (1 - a**2))  # 2
    return below, cotangents


below, cotangents = backward(x, y, weights, biases)
gradients = {
    "w": [a.T @ d / M for a, d in zip(below, cotangents)],  # 4
    "b": [d.mean(0) for d in cotangents],  # 3
}

# %% [markdown]
# ## The same from `jax.grad`


# %%
def loss(params, example):
    """The loss of ONE example."""
    a, label = example
    for w, b in zip(params["w"][:-1], params["b"][:-1]):
        a = jnp.tanh(a @ w + b)
    return -jax.nn.log_softmax(a @ params["w"][-1] + params["b"][-1])[label]


params = {"w": [jnp.asarray(w) for w in weights], "b": [jnp.asarray(b) for b in biases]}
batch = jnp.asarray(x), jnp.asarray(y)
mean_loss = lambda params: jax.vmap(loss, (None, 0))(params, batch).mean()
automatic = jax.jit(jax.grad(mean_loss))(params)
differences = jax.tree.map(lambda ours, theirs: np.abs(ours - theirs).max(), gradients, automatic)
worst = max(jax.tree.leaves(differences))
print(f"numpy against jax.grad: the largest difference is {worst:.1e}")
assert worst < 1e-12

# %% [markdown]
# ## Finite differences, and their error
#
# Moving the weights by h along a direction u changes the loss by h u'g. One-sided, the error of the
# quotient is of order h, two-sided of order h^2; but the smaller h, the more of the digits cancel:
# rounding adds about 1e-16 / h. So both curves are a V, and no width is best for all: near the root
# of 1e-16 one-sided, near its cube root two-sided.

# %%
directions = [rng.normal(size=w.shape) for w in weights]
slope = sum((u * g).sum() for u, g in zip(directions, gradients["w"]))


def moved(h):
    along = [w + h * u for w, u in zip(weights, directions)]
    return losses(x, y, along, biases).mean()


widths = 10.0 ** np.arange(-12, -0.9, 0.25)
one_sided = np.array([abs((moved(h) - moved(0)) / h - slope) for h in widths])
two_sided = np.array([abs((moved(h) - moved(-h)) / (2 * h) - slope) for h in widths])

figure, panel = plt.subplots(figsize=(5, 3.2), layout="constrained")
for error, name, order, colour in (
    (one_sided, "one-sided", 1, "#0072B2"),
    (two_sided, "two-sided", 2, "#D55E00"),
):
    panel.loglog(widths, np.maximum(error, 1e-17), color=colour, label=name)
    panel.loglog(widths, error[-9] * (widths / widths[-9]) ** order, ":", color=colour)
panel.loglog(widths, 1e-16 / widths, "--", color="#555555", label="rounding, 1e-16 / h")
panel.set(xlabel="step width h", ylabel="error of the derivative", ylim=(1e-15, 1))
panel.legend()
plt.show()

# %% [markdown]
# The orders, read off where rounding does not matter:

# %%
smooth = (widths > 1e-4) & (widths < 1e-2)
order = lambda error: np.polyfit(np.log(widths[smooth]), np.log(error[smooth]), 1)[0]
print(f"orders: one-sided {order(one_sided):.2f}, two-sided {order(two_sided):.2f}")
assert abs(order(one_sided) - 1) < 0.1
assert abs(order(two_sided) - 2) < 0.1
print(f"least errors: {one_sided.min():.0e} one-sided, {two_sided.min():.0e} two-sided")

# %% [markdown]
# ## What this has to do with per-example gradients
#
# Equation 4 is an outer product, so an example's squared norm is |a|^2 |d|^2, and no gradient of a
# single example has to be formed. `coherence` does just this, for any model.

# %%
squares = sum(((a**2).sum(1) + 1) * (d**2).sum(1) for a, d in zip(below, cotangents))
of_mean = sum((g**2).sum() for part in gradients.values() for g in part)
alpha = of_mean / squares.mean()
_, rows = co.per_example_value_and_grad(loss)(params, batch)
print(f"alpha by the equations {alpha:.12f}, by coherence {co.alpha(rows):.12f}")
assert abs(alpha - co.alpha(rows)) < 1e-12

# %% [markdown]
# On a loss of your own, `check_loss` compares these factors with a loop of `jax.grad`, and says how
# each leaf gets its gradients:

# %%
check = co.check_loss(loss, params, batch)
print(check)
assert check.ok
