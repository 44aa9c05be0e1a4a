"""Forms the candidates of `docs/mnist_test_labels.csv`: MNIST's most suspicious test labels.

    python benchmarks/mnist_test_labels.py [--votes mnist_mturk.json] [--unread unread.png]

Trains a network on the 60,000 training images, audits the test images, which it never saw, and
writes the first 50 by margin with the label that the gradients argue for. What a reader said of an
image (`judged`, `read`) and readers' published votes for the label given are carried over by the
image's number; `--unread` draws those of which nobody has said anything, and they are said by hand.
With `--votes` (from github.com/cleanlab/label-errors) the votes are filled in, and it is printed
how every score ranks the images with fewer than three of five.

The same seed gives the same list on the same machine and versions; elsewhere sums are rounded
otherwise, and a training may end at another network.
"""

import argparse
import csv
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

import coherence as co
from coherence.lab.settings import mnist

LIST = pathlib.Path(__file__).resolve().parents[1] / "docs" / "mnist_test_labels.csv"
COLUMNS = "rank", "index", "given", "argued", "margin", "judged", "read"
VOTES = "published_votes_for_given"
LISTED, SEED = 50, 0
EPOCHS, BATCH, RATE = 5, 100, 2e-3
SCORES = "el2n", "loss", "margin", "grand", "weight_alignment", "own_class"


def logits(params, image):
    """Of one flat image: two 5 x 5 convolutions with stride 2, 128 hidden units, 10 outputs."""
    x = image.reshape(1, 28, 28, 1)
    for kernel, bias in params["convolutions"]:
        dimensions = "NHWC", "HWIO", "NHWC"
        x = jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=dimensions)
        x = jax.nn.relu(x + bias)
    (hidden, shift), (last, bias) = params["dense"]
    return jax.nn.relu(x.reshape(-1) @ hidden + shift) @ last + bias


def loss(params, example):
    outputs = logits(params, example[0])
    return jax.nn.logsumexp(outputs) - outputs[example[1]]


def trained(x, y):
    """Adam, its rate falling to 0 as a cosine."""
    rng = np.random.default_rng(SEED)

    def layer(*shape):
        kernel = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[:-1]))
        return jnp.asarray(kernel, jnp.float32), jnp.zeros(shape[-1])

    params = {
        "convolutions": [layer(5, 5, 1, 16), layer(5, 5, 16, 32)],
        "dense": [layer(7 * 7 * 32, 128), layer(128, 10)],
    }
    steps = len(y) // BATCH
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE, EPOCHS * steps))

    @jax.jit
    def step(params, state, batch):
        mean = lambda p: jnp.mean(jax.vmap(loss, (None, 0))(p, batch))
        updates, state = optimizer.update(jax.grad(mean)(params), state)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for _ in range(EPOCHS):
        for index in rng.permutation(len(y))[: steps * BATCH].reshape(steps, BATCH):
            params, state = step(params, state, (x[index], y[index]))
    return params


def area(few, suspicion):
    """The chance that one of the few is more suspicious than another image; a tie counts half."""
    from coherence.lab.analysis import ranks

    count = few.sum()
    return (ranks(suspicion)[few].sum() / count - (count + 1) / 2) / (~few).sum()


def ranking(table, under, votes):
    """Prints how scores rank the images with fewer than three published votes for their label."""
    few = np.isin(np.arange(len(table)), [i for i, count in votes.items() if count < 3])
    given = np.arange(under.shape[1]) == table.labels[:, None]
    contest = np.where(given, under, 0).sum(1) - np.where(given, -np.inf, under).max(1)
    signed = {name: co.scores.auditing.SUSPICIOUS[name] * table.scores[name] for name in SCORES}
    for name, values in (signed | {"contest": -contest}).items():
        suspicion = np.nan_to_num(values, nan=-np.inf)
        first = few[np.argsort(-suspicion, kind="stable")]
        print(f"{name:>17} {area(few, suspicion):.3f} {first[:50].sum():3} {first[:100].sum():3}")


def read_votes(path):
    """`{index: readers of five who saw the label given}`."""
    return {row["id"]: row["mturk"]["given"] for row in json.loads(path.read_text())}


def draw(images, rows, path):
    """The images of some rows with their numbers and the labels given."""
    from coherence.lab.report import drawing

    with drawing.in_house_style():
        columns = min(10, len(rows))
        figure, axes = drawing.figure(-(-len(rows) // columns), columns, height=0.9)
        for panel in axes.flat:
            panel.set_axis_off()
        for panel, row in zip(axes.flat, rows):
            panel.imshow(images[row["index"]].reshape(28, 28), cmap="gray_r")
            panel.set_title(f"{row['index']}: {row['given']}", fontsize=7)
        figure.savefig(path, dpi=200)


def main(words):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--votes", type=pathlib.Path)
    parser.add_argument("--unread", type=pathlib.Path)
    asked = parser.parse_args(words)
    data = mnist().build()
    labels = data.y_train.astype(np.int32), data.y_test.astype(np.int32)
    params = trained(data.x_train, labels[0])
    test = data.x_test, labels[1]
    options = {"logits": logits, "by": "margin", "examine": LISTED, "most": 1, "reference": None}
    table = co.audit(loss, params, test, **options)
    print(f"{np.mean(table.scores['correct']):.2%} of the test labels are predicted")
    with open(LIST, newline="") as file:
        before = {int(row["index"]): row for row in csv.DictReader(file)}
    votes = read_votes(asked.votes) if asked.votes else {}
    rows = []
    for rank, (index, argued) in enumerate(zip(table.order, table.argued), 1):
        said = before.get(index, {})
        published = votes.get(index, "") if asked.votes else said.get(VOTES, "")
        margin = f"{table.scores['margin'][index]:.2f}"
        hand = said.get("judged", ""), said.get("read", "")
        values = rank, int(index), int(table.labels[index]), int(argued), margin, *hand, published
        rows.append(dict(zip((*COLUMNS, VOTES), values)))
    with open(LIST, "w", newline="") as file:
        writer = csv.DictWriter(file, (*COLUMNS, VOTES), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    unread = [row for row in rows if not row["judged"]]
    print(f"{len(unread)} of {len(rows)} have not been read: {[row['index'] for row in unread]}")
    if unread and asked.unread:
        draw(data.x_test, unread, asked.unread)
    if votes:
        everyone = np.arange(len(table))
        ranking(table, co.scores.label_agreement(loss, params, test, everyone), votes)


if __name__ == "__main__":
    main(sys.argv[1:])
