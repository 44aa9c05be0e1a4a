# %% [markdown]
# # Find the wrong labels of your own data
#
# From a CSV file or a folder of images to a cleaned data set in twenty lines: train, ask every
# example's gradient along the training, look at the suspicious ones, drop them, train once more.
#
# A wrong label makes a gradient that agrees with few others of its class. So the gradients also say
# which label they argue for, and which examples pull for and against it.

# %%
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

import coherence as co
from coherence.lab.claims import interval
from coherence.lab.report import write_audit

FOLDER = Path(tempfile.mkdtemp())
WIDTH, SEEDS, WRONG = 64, 4, 200

# %% [markdown]
# ## Your file
#
# Stands in for yours: 1,000 small digits, one a row, the label in the last column; 200 of the
# labels are wrong. Which ones is kept apart, to check the audit in the end. You will not know.


# %%
def write_file(path, seed):
    """A CSV file with wrong labels; returns the right ones, and pictures and labels to test on."""
    images, digits = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(digits))
    x, y = images[order] / 16, digits[order]
    labels = y[:1000].copy()
    wrong = rng.choice(1000, WRONG, replace=False)
    labels[wrong] = (labels[wrong] + rng.integers(1, 10, WRONG)) % 10
    np.savetxt(path, np.column_stack([x[:1000], labels]), delimiter=",", fmt="%g")
    return y[:1000], x[1000:].astype(np.float32), y[1000:]


truth, x_test, y_test = write_file(FOLDER / "mine.csv", seed=0)

# %% [markdown]
# ## Twenty lines
#
# Any network will do, written any way: `logits` and `loss` are functions of parameters and ONE
# example. A few checkpoints are saved on the way: in the end the network may know wrong labels by
# heart, and only the way there tells. `aum` is the area under the margin: how far the given label
# was ahead of the others, on average.


# %%
def logits(params, x):
    return jax.nn.relu(x @ params["in"]) @ params["out"]


def loss(params, example):
    outputs = logits(params, example[0])
    return jax.nn.logsumexp(outputs) - outputs[example[1]]


@jax.jit
def hundred_steps(params, x, y, weight):
    mean_loss = lambda p: weight @ jax.vmap(loss, (None, 0))(p, (x, y)) / weight.sum()
    step = lambda _, p: jax.tree.map(lambda p, g: p - 0.5 * g, p, jax.grad(mean_loss)(p))
    return jax.lax.fori_loop(0, 100, step, params)


def train(x, y, seed, weight=None):
    """Checkpoints of 300 steps of gradient descent; examples of weight 0 are left out."""
    rng, weight = np.random.default_rng(seed), np.ones(len(y)) if weight is None else weight
    start = {"in": rng.normal(size=(64, WIDTH)) * 0.15, "out": rng.normal(size=(WIDTH, 10)) * 0.1}
    checkpoints = [jax.tree.map(jnp.float32, start)]
    for _ in range(3):
        checkpoints.append(hundred_steps(checkpoints[-1], x, y, jnp.float32(weight)))
    return checkpoints[1:]


rows = np.loadtxt(FOLDER / "mine.csv", delimiter=",")
x, y = rows[:, :-1].astype(np.float32), rows[:, -1].astype(np.int32)
ASKED = {"logits": logits, "by": "aum", "examine": 250, "most": 3, "batch_size": 64}
table = co.audit(loss, co.scores.Trajectory(train(x, y, seed=0)), (x, y), **ASKED)
suspects = table.order[: len(table.argued)]
differs = (table.scores["aum"][suspects] < 0) & (table.argued != y[suspects])
doubted = suspects[differs]
cleaned = np.delete(rows, doubted, axis=0)
np.savetxt(FOLDER / "cleaned.csv", cleaned, delimiter=",", fmt="%g")
print(table)
print(f"\n{len(doubted)} of the {len(suspects)} most suspicious rows are dropped.")

# %% [markdown]
# ## Look before you drop
#
# The first rows, with the label given and the label argued for; beside each the examples whose
# gradients pull most towards it and against it, as it is labelled. `write_audit` writes the same as
# a page, for all rows that were examined; `table.to_csv` and `table.to_dataframe` hand it on.

# %%
page = write_audit(table, x, FOLDER / "audit.html", classes=list("0123456789"))
ROWS, MOST = 4, 3
figure, panels = plt.subplots(ROWS, 1 + 2 * MOST, figsize=(8, 5.5), layout="constrained")
for k, row in enumerate(panels):
    shown = [table.order[k], *table.extremes.helpers[k][:MOST], *table.extremes.opponents[k][:MOST]]
    for axes, i in zip(row, shown):
        axes.imshow(x[i].reshape(8, 8), cmap="gray_r")
        axes.set_title(f"{y[i]}", fontsize=8)
        axes.set(xticks=[], yticks=[])
    row[0].set(ylabel=f"row {shown[0]}")
    row[0].set_title(f"given {y[shown[0]]}, argued {table.argued[k]}", fontsize=8, color="#D55E00")
panels[-1, 1].set(xlabel="helpers")
panels[-1, 1 + MOST].set(xlabel="opponents")
plt.show()

# %% [markdown]
# ## Images in folders
#
# With images only reading and cleaning differ: one folder a label, PNG or JPEG, as most tools want
# them. The doubtful ones are moved aside, not deleted. (Of an `npz` file: `with np.load(path) as f:
# pictures, given = f["x"], f["y"]`.) Here the rows of the CSV file are written as images first.


# %%
def write_images(folder, rows):
    for k, row in enumerate(rows):
        path = folder / f"{row[-1]:.0f}" / f"{k:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.uint8(255 * row[:-1].reshape(8, 8))).save(path)


write_images(FOLDER / "images", rows)

# %%
SIDE, KINDS = 8, (".png", ".jpg", ".jpeg")
files = [p for p in sorted(FOLDER.glob("images/*/*")) if p.suffix.lower() in KINDS]
classes, given = np.unique([p.parent.name for p in files], return_inverse=True)
grey = [Image.open(p).convert("L").resize((SIDE, SIDE)) for p in files]
pictures = np.stack([np.float32(image) for image in grey]).reshape(len(files), -1) / 255
data = pictures, given.astype(np.int32)
of_images = co.audit(loss, co.scores.Trajectory(train(*data, seed=0)), data, **ASKED)
suspects = of_images.order[: len(of_images.argued)]
differs = (of_images.scores["aum"][suspects] < 0) & (of_images.argued != given[suspects])
for i in suspects[differs]:
    aside = FOLDER / "doubtful" / classes[given[i]]
    aside.mkdir(parents=True, exist_ok=True)
    files[i].rename(aside / files[i].name)
write_audit(of_images, pictures, FOLDER / "images.html", classes=list(classes))
left, moved = (len([*(FOLDER / name).glob("*/*")]) for name in ("images", "doubtful"))
print(f"{left} images are left, {moved} were moved aside.")
numbers = {int(p.stem) for p in FOLDER.glob("doubtful/*/*")}
wrong = set(np.flatnonzero(y != truth))
print(f"Of those {len(numbers & wrong)} were wrong, of {len(wrong)} wrong ones in all.")

# %% [markdown]
# ## Was it right, and does it help?
#
# Here it is known which labels are wrong. Of four files and four trainings each: how many of the
# dropped rows were wrong, and the accuracy on clean test examples when trained on all rows, without
# the dropped ones, without as many drawn by lot, with the labels argued for in place of theirs, and
# without exactly the wrong ones, which nobody can beat by dropping.


# %%
def accuracy(checkpoints):
    return float(np.mean(np.argmax(logits(checkpoints[-1], x_test), axis=1) == y_test))


WAYS = ("all rows", "as many dropped by lot", "dropped", "relabelled", "exactly the wrong dropped")
accuracies = {way: [] for way in WAYS}
right, caught = [], []
for seed in range(SEEDS):
    truth, x_test, y_test = write_file(FOLDER / "mine.csv", seed)
    rows = np.loadtxt(FOLDER / "mine.csv", delimiter=",")
    x, y = rows[:, :-1].astype(np.float32), rows[:, -1].astype(np.int32)
    checkpoints = train(x, y, seed)
    run = co.scores.Trajectory(checkpoints)
    audit = co.audit(loss, run, (x, y), **ASKED)
    suspects = audit.order[: len(audit.argued)]
    differs = (audit.scores["aum"][suspects] < 0) & (audit.argued != y[suspects])
    doubted, wrong = suspects[differs], y != truth
    right.append(wrong[doubted].mean())
    caught.append(wrong[doubted].sum() / wrong.sum())
    lot = np.random.default_rng(seed).choice(len(y), len(doubted), replace=False)
    relabelled = y.copy()
    relabelled[doubted] = audit.argued[differs]
    keep = lambda dropped: ~np.isin(np.arange(len(y)), dropped)
    trained = (
        checkpoints,
        train(x, y, seed, keep(lot)),
        train(x, y, seed, keep(doubted)),
        train(x, relabelled, seed),
        train(x, y, seed, ~wrong),
    )
    for way, result in zip(WAYS, trained):
        accuracies[way].append(accuracy(result))

for words, values in (("of the dropped, wrong", right), ("of the wrong, dropped", caught)):
    print("{}: {:.0%} [{:.0%}, {:.0%}]".format(words, *interval(values)))
figure, axes = plt.subplots(figsize=(6.5, 2.4), layout="constrained")
for place, way in enumerate(WAYS):
    middle, low, high = interval(accuracies[way])
    axes.plot(accuracies[way], [place] * SEEDS, ".", color="#56B4E9")
    axes.errorbar(middle, place, xerr=[[middle - low], [high - middle]], fmt="o", color="#0072B2")
axes.set_yticks(range(len(WAYS)), WAYS)
axes.invert_yaxis()
axes.set(xlabel="test accuracy: each file, mean and 95 % interval", ylabel="trained on")
plt.show()

# %%
print(f"{'trained on':<28}test accuracy, mean and 95 % interval")
for way in WAYS:
    print("{:<28}{:.3f} [{:.3f}, {:.3f}]".format(way, *interval(accuracies[way])))
gain = np.subtract(accuracies["dropped"], accuracies["as many dropped by lot"])
print("\ndropped less by lot, paired: {:+.3f} [{:+.3f}, {:+.3f}]".format(*interval(gain.tolist())))

# %% [markdown]
# Of these four files: nearly all wrong labels are among the dropped rows, one in ten of the dropped
# was right, and test accuracy is above that of dropping as many by lot. Relabelling unseen is no
# better than dropping.
#
# Your data are not these digits. Wrong labels drawn by lot are the easiest kind: confusions of
# classes that look alike are harder. Hard examples look suspicious, too, and a network that never
# sees them will not learn them. So look first, at the page that `write_audit` wrote.
