"""The numbers that verdicts on the papers' claims rest on, from the recorded arrays with numpy.

A second implementation: nothing of ours but what it is compared with.
"""

import itertools
from pathlib import Path

import numpy as np
import pytest

from coherence.lab.experiment import collect, load
from coherence.lab.report import gallery

ROOT = Path(__file__).resolve().parents[2]


def crossing(curve, values, level):
    """A value where a falling curve first is at a level, linear between two points; else nan."""
    for i, now in enumerate(curve):
        if now <= level:
            if i == 0:
                return values[0]
            share = (curve[i - 1] - level) / (curve[i - 1] - now)
            return values[i - 1] + share * (values[i] - values[i - 1])
    return np.nan


def crossings(curves, values, level):
    curves, values = np.asarray(curves, float), np.asarray(values, float)
    values = np.broadcast_to(values, curves.shape)
    return np.array([crossing(*pair, level) for pair in zip(curves, values)])


def real_vs_random(z):
    first, last = f"rate={z['learning_rates'][0]:g}", f"rate={z['learning_rates'][-1]:g}"
    found, m = {}, float(z["m"])
    for rate, which in ((first, ""), (last, ", small step")):
        if which and first == last:
            continue
        for k, level in enumerate(z["levels"]):
            pair = []
            for label in ("real", "random"):
                values = z[f"{label},{rate}/at_levels"][:, k].copy()
                grid = z[f"{label},{rate}/at_grid"]
                values[np.float32(values) == grid[:, 0]] = np.nan
                pair.append(values)
            found[f"real above random at {level:.0%}{which}"] = [(x - 1) / (m - 1) for x in pair]
            if level == 0.5:
                found[f"out of nothing{which}"] = pair[1] - 1
        if z["sample"] >= 10_000:
            for name, label in (
                ("helps tens, true", "real"),
                ("helps one or two, random", "random"),
            ):
                arm = f"{label},{rate}"
                loss = z[f"{arm}/train_loss"].astype(float)
                half = [
                    crossing(curve, values, curve[0] / 2)
                    for curve, values in zip(loss, z[f"{arm}/m_coherence"].astype(float))
                ]
                found[f"{name} labels{which}"] = np.array(half)
    gaps = [
        z[f"{label},{first}/train_accuracy"][:, -1] - z[f"{label},{first}/test_accuracy"][:, -1]
        for label in ("random", "real")
    ]
    return found | {"memorized without generalizing": gaps[0] - gaps[1]}


def batch_and_rate(z):
    small, large = z["batches"][0], z["batches"][-1]
    found = {
        "full batch generalizes": z[f"b={large},small/test_accuracy"][:, -1],
        "small steps as good as large": z[f"b={large},small/test_accuracy"][:, -1]
        - z[f"b={large},large/test_accuracy"][:, -1],
        "full batch as good at equal loss": {},
        "full batch as good after equal steps": {},
    }
    for size in ("large", "small"):
        ends, fits = [], []
        for b in (large, small):
            arm = f"b={b},{size}"
            fits.append(crossings(z[f"{arm}/train_loss"], z[f"{arm}/test_accuracy"], 0.1))
            step, curves = z[f"{arm}/step"], z[f"{arm}/test_accuracy"]
            ends.append(np.array([np.interp(z["steps"], step, curve) for curve in curves]))
        found["full batch as good at equal loss"][f"{size} steps"] = fits[0] - fits[1]
        found["full batch as good after equal steps"][f"{size} steps"] = ends[0] - ends[1]
    for kind, sign in (("loss", 1), ("accuracy", -1)):
        arm = f"b={large},small"
        gap = sign * (z[f"{arm}/test_{kind}"] - z[f"{arm}/train_{kind}"])
        gap, step, parts = gap / gap[:, -1].mean(), z[f"{arm}/step"], {}
        for i in range(len(step)):
            for j in range(i + 1, len(step)):
                parts[f"steps {step[i]} to {step[j]}"] = gap[:, i] - gap[:, j]
        found[f"the gap in {kind} never falls"] = parts
    return found


def easy_and_hard(z):
    accuracy = z["accuracy"]  # [trained on, tested on, seed]: easy, random, hard
    easy, hard = z["sweep/accuracy"][:, :, 1].swapaxes(0, 1)  # on random, [length, seed]
    wrong, agreement = z["adversary/wrong"], z["adversary/agreement"]
    boundary = {
        f"hard ones do not define the boundary, {steps} steps": values
        for steps, values in zip(z["lengths"], easy - hard)
    }
    return boundary | {
        "a longer brief training leaves harder ones": easy[-1] - hard[-1] - easy[0] + hard[0],
        "reliably learned, 1000 steps": z["sweep/agreement"][-1],
        "an adversarial start makes easy ones hard": wrong[:, 1] - wrong[:, 0],
        "what is easy depends on the start": agreement[:, 0] - agreement[:, 1],
        "easy generalize better than hard": accuracy[0, 0] - accuracy[2, 2],
        "hard ones do not define the boundary": accuracy[0, 1] - accuracy[2, 1],
        "reliably learned early": z["agreement"],
        "random in between": {
            "easy and random": accuracy[0, 0] - accuracy[1, 1],
            "random and hard": accuracy[1, 1] - accuracy[2, 2],
        },
        "gaps in reverse order": {
            "easy and random": z["gap"][1] - z["gap"][0],
            "random and hard": z["gap"][2] - z["gap"][1],
        },
        "nor that of easy and hard alike": (
            accuracy[0, 0] + accuracy[0, 2] - accuracy[2, 0] - accuracy[2, 2]
        )
        / 2,
        "easy are more coherent": [
            (z["coherence"][:, kind].mean(0) - 1) / (z["m"] - 1) for kind in (0, 2)
        ],
    }


def evolution(z):
    m, found = float(z["m"]), {"it starts from nearly m": {}, "a first transient": {}}
    for arm in map(str, z["arms"][:-1]):
        whole = z[f"{arm}/m_coherence"].astype(float)
        found["it starts from nearly m"][arm] = whole[:, 0] / m
        last = np.flatnonzero(z[f"{arm}/step"] <= 25)[-1]
        found["a first transient"][arm] = np.log2(whole[:, 0]) - np.log2(whole[:, last])
    names = {
        "convolutions": "cnn-1",
        "convolutions, small step": "cnn-1-small",
        "dense": "mlp-1",
    }
    for words, arm in names.items():
        loss, logs = z[f"{arm}/loss"], np.log2(z[f"{arm}/m_coherence"].astype(float))
        middle = (loss <= 0.75 * loss[:, :1]) & (loss >= 0.25 * loss[:, :1])
        means = [row[points].mean() for row, points in zip(logs, middle)]
        found[f"coherence out of nothing, {words}"] = np.array(means)
    return found | courses(z, m)


def fitting(z, arms):
    """Seeds of which all arms fit 99 % of their labels; all, if they are not three of four."""
    fit = np.min([z[f"{arm}/accuracy"][0] for arm in arms], axis=0) >= 0.99
    return fit if 4 * fit.sum() >= 3 * len(fit) else np.full(len(fit), True)


def courses(z, m):
    """Of the convolutional networks: humps, their heights and steps, and layers."""
    found, tops, steps = {}, [], []
    cnns = [f"cnn-{noise:g}" for noise in z["noise"]]
    all_fitted = fitting(z, cnns)
    last = {"back to the orthogonal limit": {}}
    above = {"the dense layer": {}, "an MLP's layers": {}}
    for noise in z["noise"]:
        arm, name = f"cnn-{noise:g}", f"{noise:.0%} noise"
        curves = z[f"{arm}/m_coherence"].astype(float)
        smooth = np.array(
            [[np.median(c[max(i - 1, 0) : i + 2]) for i in range(len(c))] for c in curves]
        )

        def peak(curve):
            logs, best = np.log2(curve), (-1, 0, 0)
            for i in range(len(logs)):
                height = min(logs[i] - logs[: i + 1].min(), logs[i] - logs[-1])
                best = max(best, (height, -i, logs[: i + 1].argmin()), key=lambda x: x[:2])
            return best[2], -best[1]

        def course(curves):
            places = [peak(np.delete(curves, k, 0).mean(0)) for k in range(len(curves))]
            before = np.array([c[low] for c, (low, _) in zip(curves, places)])
            return before, np.array([c[top] for c, (_, top) in zip(curves, places)]), curves[:, -1]

        before, top, end = course(smooth[fitting(z, [arm])])
        found[f"coherence rises, peaks and falls, {name}"] = {
            "rise": np.log2(top / before),
            "fall": np.log2(top / end),
        }
        _, top, end = course(smooth[all_fitted])
        tops.append(top)
        steps.append(np.array([z[f"{arm}/step"][peak(c)[1]] for c in smooth[all_fitted]]))
        last["back to the orthogonal limit"][name] = np.log2(end)
        layers = {k: z[f"{k}-{noise:g}/middle_by_layer"].astype(float) for k in ("cnn", "mlp")}
        unbiased = lambda values: (values - 1) / (m - 1)
        convolutions = unbiased(layers["cnn"][:, :-1].mean(1))
        others = layers["cnn"][:, -1], layers["mlp"][:, :-1].mean(1)
        for what, other in zip(above, others):
            above[what][name] = [convolutions, unbiased(other)]
    found |= last | {f"convolutions above {what}": each for what, each in above.items()}
    names = [f"{noise:.0%} noise" for noise in z["noise"][1:]]
    logs = [np.log2(np.maximum(step, 1)) for step in steps]
    found["more noise, later peak"] = {n: b - a for n, a, b in zip(names, logs, logs[1:])}
    alphas = [(top - 1) / (m - 1) for top in tops]
    found["more noise, lower peak"] = {n: [a, b] for n, a, b in zip(names, alphas, alphas[1:])}
    return found


def batch_norm(z):
    m, through = float(z["m"]), {}
    for label in ("true", "random"):
        loss = z[f"batch,{label}/loss"].astype(float)
        coherence = z[f"batch,{label}/inverted"].astype(float).mean(-1)
        at = [
            [crossing(*pair, share * pair[0][0]) for share in (0.75, 0.5, 0.25)]
            for pair in zip(loss, coherence)
        ]
        through[label] = np.array(at).mean(1)
    return {
        "true above random with batch norm": [(x - 1) / (m - 1) for x in through.values()],
        "random labels usually below 5 with batch norm": through["random"],
    }


def gap_bound(z):
    places = {}
    for i, noise in enumerate(z["noise"]):
        ends = [(f"{level:g} nats", level) for level in (1.5, 1.0, 0.5, 0.2)] + [("end", None)]
        for name, level in ends:
            bound, gap = z["bound/beta"][i], z["gap"][i]
            if level is None:
                bound, gap = bound[:, -1], gap[:, -1]
            else:
                bound, gap = (crossings(z["train_loss"][i], x, level) for x in (bound, gap))
            places[f"{noise:.0%} noise, {name}"] = bound - np.log10(np.maximum(gap, 1e-3))
    loose = {name.split()[0]: each for name, each in places.items() if name.endswith("end")}
    return {"above the gap: with beta": places, "loose": loose}


def label_noise(z):
    found, noise = {}, z["noise"]
    for k, level in enumerate(("50%", "90%")):
        steps = np.log2(z["steps_to"][k])
        pairs = zip(noise, noise[1:], steps, steps[1:])
        found[f"noise slows learning to {level}"] = {
            f"{a:.0%} to {b:.0%}": more - less for a, b, less, more in pairs
        }
    each = {"pristine learned before corrupt": {}, "pristine pay early": {}, "corrupt pay late": {}}
    each["null worlds stay flat"] = {}
    for i, share in enumerate(z["mixed"]):
        name, f, null = f"{share:.0%} noise", z["phases"][i], z["null_phases"][i]
        pristine, corrupt = z["half_fitted"][i].T
        each["pristine learned before corrupt"][name] = np.log2(corrupt) - np.log2(pristine)
        each["pristine pay early"][name] = f[:, 0] - null[:, 0, 1]
        each["corrupt pay late"][name] = null[:, 1, 0] - f[:, 1]
        each["null worlds stay flat"][name] = f[:, 0] - f[:, 1] - z["null_change"][i]
    return found | each | resemblance(z) | {"pristine gain more early": gains(z)}


def resemblance(z):
    """How much nearer a group's curve is to its own reference, over the logarithm of the step."""
    later, found = z["step"] >= 1, {}
    logs = np.log(z["step"][later])
    references = {level: z["train_accuracy"][z["noise"] == level][0] for level in (0, 1)}
    names = {"pristine": ("pristine learned as without noise", 0)}
    names["corrupt"] = ("corrupt learned as all random", 1)
    for group, (claim, own) in names.items():
        each = []
        for k in np.flatnonzero((z["noise"] > 0) & (z["noise"] < 1)):
            curves = z[f"{group}_accuracy"][k][:, later]
            areas = [
                np.trapezoid(np.abs(curves - references[level][:, later]), logs, axis=1)
                for level in (1 - own, own)
            ]
            each.append(np.log2(areas[0] / areas[1]))
        found[claim] = np.mean(each, 0)
    return found


def gains(z):
    """i of pristine minus i of corrupt when half of the pristine are fitted."""
    return {
        f"{share:.0%} noise": np.array(
            [
                np.interp(half, z["step"], pristine - corrupt)
                for half, (pristine, corrupt) in zip(z["half_fitted"][i][:, 0], z["i"][i])
            ]
        )
        for i, share in enumerate(z["mixed"])
    }


def medians(z):
    many, few = z["classes"]
    methods, noise = list(map(str, z["methods"])), float(z["noise"])

    def end(classes, share, kind):
        values = z[f"classes={classes},noise={share:g}/{kind}_accuracy"]
        return dict(zip(methods, values[..., -1]))

    corrupt, train, test = (end(many, noise, kind) for kind in ("corrupt", "train", "test"))
    of_few, unnoisy = end(few, noise, "corrupt"), end(many, 0, "test")
    found = {"RA3 memorizes like SGD": corrupt["SGD"] - corrupt["RA3"]}
    (_, plain), (sgd, heavy) = map(climbs, (z["plain_loss"], z["momentum/train_loss"]))
    parts = {"than without": heavy - plain, "than SGD with it": heavy - sgd}
    found["RM3 is unstable with momentum"] = parts
    for name in ("M3", "RM3"):
        less, less_of_few = corrupt["SGD"] - corrupt[name], of_few["SGD"] - of_few[name]
        gaps = [train[method] - test[method] for method in ("SGD", name)]
        found |= {
            f"{name} memorizes less": less,
            f"{name} overfits less": gaps[0] - gaps[1],
            f"{name} ends better on test": test[name] - test["SGD"],
            f"{name} loses little on clean labels": unnoisy["SGD"] - unnoisy[name],
            f"{name} memorizes less of ten classes": less_of_few,
            f"{name} needs few examples of a class": less - less_of_few,
        }
    return found


def climbs(losses):
    """The largest rise of each curve above any earlier point, over its first: [2, seed]."""
    largest = np.zeros(losses.shape[:2])
    for k, seed in np.ndindex(largest.shape):
        curve = [float(value) for value in losses[k, seed]]
        rises = [max(curve[i:]) - curve[i] for i in range(len(curve))]
        largest[k, seed] = max(rises) / curve[0]
    return largest


def metrics_compared(z):
    losses, m = list(z["losses"]), float(z["sample"])
    differ = {"cosine stiffness": "cosine_stiffness", "sign stiffness": "sign_stiffness"}
    differ |= {"lowest cosine": "minimum_cosine", "kernel alignment": "kernel_alignment"}
    doubled = {"disparity": "disparity", "mean GSNR": "mean_gsnr", "sharpness": "sharpness"}
    separate = {}
    for names, change in ((differ, lambda x: x), (doubled, np.log2)):
        for label, name in names.items():
            true, random = (change(z[f"{arm}/{name}"].astype(float)) for arm in ("real", "random"))
            separate[f"{label} separates"] = {
                f"{level:g} nats": (true - random)[:, losses.index(level)] for level in z["levels"]
            }
    return separate | {
        f"m-coherence separates at {level:g}": [
            (z[f"{arm}/m_coherence"][:, losses.index(level)].astype(float) - 1) / (m - 1)
            for arm in ("real", "random")
        ]
        for level in z["levels"]
    }


def width(z):
    place, m = 8, float(z["m"])  # 0.35 nats
    ends, coherent = z["widths"][[-1, 0]], {}
    for how, words in (("standard", "standard parametrization"), ("mu", "maximal update")):
        for level, at in ((1.5, 2), (0.65, 6)):
            pair = [(z[f"{how}-{end}/m_coherence"][:, at] - 1) / (m - 1) for end in ends]
            coherent[f"wider is more coherent at {level:g}, {words}"] = pair
            layers = [z[f"{how}-{end}/by_layer"][:, at].astype(float) for end in ends]
            others = [[np.delete(x, k, 0).mean(0) for k in range(len(x))] for x in layers]
            most = [
                np.array(
                    [(row[mean.argmax()] - 1) / (float(z["sample"]) - 1) for row, mean in zip(*p)]
                )
                for p in zip(layers, others)
            ]
            name = f"wider is more coherent at {level:g} in its most coherent layer, {words}"
            coherent[name] = most
    return coherent | {
        f"wider generalizes better, {words}": z[f"{how}-{z['widths'][-1]}/test_accuracy"][:, place]
        - z[f"{how}-{z['widths'][0]}/test_accuracy"][:, place]
        for how, words in (("standard", "standard parametrization"), ("mu", "maximal update"))
    }


def winsorization(z):
    found, noises, cs = {}, list(z["noise"]), list(z["c"])
    train, test = (z[f"{name}_accuracy"][..., -1] for name in ("train", "test"))
    for i, noise in enumerate(noises):
        if noise and 2 in cs:
            name = f"only true labels fitted, {100 * noise:.0f}% random"
            found[name] = train[i, cs.index(2)] - (1 - 0.9 * noise)
    if 0.5 in noises:
        half = noises.index(0.5)
        overfit = train[half] - (0.05 + 0.5 * test[half])
        found["overfit falls with c"] = {
            f"c = {a:g} to {b:g}": overfit[i] - overfit[i + 1]
            for i, (a, b) in enumerate(itertools.pairwise(cs))
        }
    if 0 in noises:
        clean = train[noises.index(0)]
        found["large c hurts fitting"] = clean[cs.index(0)] - clean[-1]
    return found


def classifiers_compared(z):
    accuracy = dict(zip(map(str, z["name"]), z["accuracy"].astype(float)))
    drop = {name: values[0] - values[-1] for name, values in accuracy.items()}
    pairs = {
        "one neighbour loses more than five": ("one_neighbour", "knn"),
        "a tree loses more than a forest": ("tree", "random_forest"),
        "boosting loses more than bagging": ("adaboost", "random_forest"),
        "the median of means loses less": ("mlp", "mlp_m3"),
    }
    return {name: drop[first] - drop[second] for name, (first, second) in pairs.items()}


def regularizers(z):
    halves = {}
    for kind in ("pristine", "corrupt"):
        share = z[f"l2/{kind}_accuracy"] / z[f"{kind}_accuracy"][-1, :, -1]
        halves[kind] = crossings(share.T, np.log10(z["l2/rates"]), 0.5)
    test, best = z["test_accuracy"][-1], z["test_accuracy"][-1].max(-1)
    kept = dict(zip(map(str, z["rules"]), z["kept"][:, -1]))
    regret = {
        rule: best - np.array([path[place] for path, place in zip(test, places)])
        for rule, places in kept.items()
    }
    return {
        "L2 gives up the corrupt first": halves["pristine"] - halves["corrupt"],
        "patience beats never stopping": regret["never"] - regret["patience, loss"],
    }


def noise_features(z):
    m, arms = float(z["m"]), [f"features={k}" for k in z["features"]]

    def at(arm, name, level):
        return crossings(z[f"{arm}/train_loss"], z[f"{arm}/{name}"].astype(float), level)

    accuracy = {arm: at(arm, "test_accuracy", 0.2) for arm in arms}
    gain = {
        arm: at(f"{arm},l1", "test_accuracy", 0.2) - accuracy[arm] for arm in (arms[0], arms[-1])
    }
    pairs = list(itertools.pairwise(arms))
    unbiased = lambda arm, level: (at(arm, "m_coherence", level) - 1) / (m - 1)
    found = {
        f"useless features lower coherence at {level:g}": {
            f"{a} to {b}": [unbiased(a, level), unbiased(b, level)] for a, b in pairs
        }
        for level in (1.0, 0.2)
    }
    return found | {
        "useless features lower test accuracy": {
            f"{a} to {b}": accuracy[a] - accuracy[b] for a, b in pairs
        },
        "L1 restores test accuracy": gain[arms[-1]],
        "L1 restores half of it or more": gain[arms[-1]]
        - (accuracy[arms[0]] - accuracy[arms[-1]]) / 2,
        "L1 does so because of the useless features": gain[arms[-1]] - gain[arms[0]],
        "L1 restores coherence": [unbiased(f"{arms[-1]},l1", 0.2), unbiased(arms[-1], 0.2)],
    }


def trees(z):
    m, half = float(z["batch_size"]), list(z["noise"]).index(0.5)
    shares = [f"{a:.0%} to {b:.0%}" for a, b in zip(z["noise"], z["noise"][1:])]
    sizes, alphas = z["shapes"][:, :, 0, 0], (z["m_coherence"][..., 2] - 1) / (m - 1)
    leaf, c = list(z["leaf"]).index(8), list(z["c"]).index(4)
    grown = z["trees"][:, :, leaf, 3] - z["trees"][:, :, 0, 3]
    pulled = z["ends"][:, c, :, 3] - z["ends"][:, 0, :, 3]
    return {
        "leaves shrink with noise": {
            share: np.log2(sizes[i]) - np.log2(sizes[i + 1]) for i, share in enumerate(shares)
        },
        "coherence falls with noise": {
            share: [alphas[i], alphas[i + 1]] for i, share in enumerate(shares)
        },
        "trees: many restore accuracy": grown[half],
        "trees: because of noise": grown[half] - grown[0],
        "networks: many restore accuracy": pulled[1],
        "networks: because of noise": pulled[1] - pulled[0],
    }


def generative_vs_discriminative(z):
    errors = np.array([z[f"{name}/error"][..., [0, -1]].mean(0) for name in z["sets"]], float)
    bayes, logistic, penalized = errors[:, 0], errors[:, 2], errors[:, 3]  # [set, few or many]
    few, many = logistic[:, 0] - bayes[:, 0], bayes[:, 1] - logistic[:, 1]
    return {
        "naive Bayes leads with few examples": few,
        "logistic regression leads with many": many,
        "the curves cross": 1.0 * ((few > 0) & (many > 0)),
        "the lead outlives a penalty": penalized[:, 0] - bayes[:, 0],
    }


def circles(z):
    far = {arm: z[f"{arm}/distance"] for arm in ("AE", "VAE", "ConvVAE")}
    normal = {arm: z[f"{arm}/from_normal"] for arm in far}
    doublings = lambda a, b: np.log2(a) - np.log2(b)
    return {
        "ConvVAE: z is the radius": z["ConvVAE/spearman"],
        "z becomes normal": {
            "AE to VAE": normal["AE"] - normal["VAE"],
            "VAE to ConvVAE": normal["VAE"] - normal["ConvVAE"],
        },
        "VAE: samples nearer to circles than the AE's": doublings(far["AE"], far["VAE"]),
        "ConvVAE: samples nearer than the VAE's": doublings(far["VAE"], far["ConvVAE"]),
        "VAE: samples nearer even if the AE's z is fitted": doublings(
            z["AE/fitted_distance"], far["VAE"]
        ),
        "AE: anomalies reconstruct badly": dict(
            zip(("square", "cross", "disc", "noise"), z["AE/anomaly"].T)
        ),
    }


def digit_vaes(z):
    order = np.argsort(z["betas"])
    betas, kl, error = z["betas"][order], z["test_kl"][:, order], z["test_reconstruction"][:, order]
    names = [f"beta {a:g} to {b:g}" for a, b in itertools.pairwise(betas)]
    elbo, unit = -(kl + error), list(betas).index(1)
    return {
        "the digit asked for is drawn": z["recognized"].mean(1),
        "the label improves the bound": z["elbo"][:, 1] - z["elbo"][:, 0],
        "the label tells at most ln 10": z["bounds"][:, 1, 1] - z["bounds"][:, 0, 1] - np.log(10),
        "told the label, codes say less of it": z["code_accuracy"][:, 0] - z["code_accuracy"][:, 1],
        "KL falls with beta": {
            name: np.log2(kl[:, i]) - np.log2(kl[:, i + 1]) for i, name in enumerate(names)
        },
        "reconstruction suffers with beta": {
            name: error[:, i + 1] - error[:, i] for i, name in enumerate(names)
        },
        "beta 1 has the best bound": {
            f"beta {beta:g}": elbo[:, unit] - elbo[:, i]
            for i, beta in enumerate(betas)
            if i != unit
        },
    }


def depth(z):
    m, levels, found = float(z["m"]), list(z["levels"]), {}
    for kind, words in (("mlp", "MLP"), ("linear", "linear network")):
        depths = z[f"depths/{kind}"][[-1, 0]]
        for level, large in ((1.8, ""), (1.2, ""), (1.2, "-large")):
            pair = [
                (z[f"{kind}-{end}{large}/m_coherence"][:, levels.index(level)] - 1) / (m - 1)
                for end in depths
            ]
            which = ", large step" if large else ""
            found[f"deeper {words}s are more coherent at {level:g}{which}"] = pair
        inside = [i for i, level in enumerate(levels) if 1.2 <= level <= 1.8]
        deep, shallow = (z[f"{kind}-{end}/main_share"][:, inside].mean(1) for end in depths)
        found[f"deeper {words}s follow the main direction"] = deep - shallow
    return found


def weight_sharing(z):
    m, layers = float(z["m"]), list(z["layers"])

    def middle(values):
        loss = z["shared,random/train_loss"].astype(float)
        pairs = zip(loss, values.astype(float))
        at = [[crossing(*pair, share * pair[0][0]) for share in z["levels"]] for pair in pairs]
        return np.array(at).mean(1)

    whole = middle(z["shared,random/m_coherence"])
    by_layer = z["shared,random/by_layer"]
    means = [
        np.mean([middle(by_layer[..., layers.index(name)]) for name in names], 0)
        for names in (("conv_0", "conv_1", "conv_2"), ("dense_0", "dense_1"))
    ]
    return {
        "random labels look coherent": 1 + 249 * (whole - 1) / (m - 1),
        "convolutions above dense layers on random labels": [(x - 1) / (m - 1) for x in means],
    }


AGAIN = {
    function.__name__: function
    for function in (
        *(real_vs_random, batch_and_rate, easy_and_hard, evolution, gap_bound, label_noise),
        *(
            batch_norm,
            medians,
            metrics_compared,
            width,
            winsorization,
            classifiers_compared,
            regularizers,
        ),
        *(
            noise_features,
            trees,
            generative_vs_discriminative,
            circles,
            digit_vaes,
            depth,
            weight_sharing,
        ),
    )
}
RECORDED = [name for name in gallery.names(ROOT) if gallery.stem(name) in AGAIN]


def plain(values):
    """Numbers of one part as an array: of a ratio its numerator and denominator."""
    if hasattr(values, "numerator"):
        values = [values.numerator, values.denominator]
    return np.asarray(values, float)


@pytest.mark.parametrize("name", RECORDED)
def test_numbers_computed_again_from_the_arrays_are_the_judged_ones(name):
    with np.load(gallery.recording(ROOT, name)) as file:
        recorded = dict(file)
    judged = load(ROOT / "experiments" / f"{gallery.stem(name)}.py").judge(recorded)
    for claim, again in AGAIN[gallery.stem(name)](recorded).items():
        values = judged[claim][0] if type(judged[claim]) is tuple else judged[claim]
        if isinstance(again, dict):
            assert values.keys() == again.keys(), claim
            pairs = [(values[part], again[part]) for part in again]
        else:
            pairs = [(values, again)]
        for value, other in pairs:
            np.testing.assert_allclose(plain(value), plain(other), 1e-5, 1e-7, err_msg=claim)


def test_every_claim_of_the_papers_but_exact_ones_is_computed_again():
    for name in gallery.names(ROOT):
        stem = gallery.stem(name)
        claims = collect(load(ROOT / "experiments" / f"{stem}.py")).claims
        papers = {claim.name for claim in claims if claim.group == "papers"}
        with np.load(gallery.recording(ROOT, name)) as file:
            recorded = dict(file)
        judged = load(ROOT / "experiments" / f"{stem}.py").judge(recorded)
        again = AGAIN[stem](recorded) if stem in AGAIN else {}
        assert papers & judged.keys() <= again.keys(), name
