"""Runs as training would record them, written through `coherence.lab.runs`: digits, two probes on
schedules of their own, known numbers.
"""

import functools

import numpy as np
from sklearn.datasets import load_digits

from coherence.lab.runs import Run

LAYERS = ("hidden_0", "hidden_1", "hidden_2", "output")
EXAMPLES = 60
AXES = {
    "train/m_coherence_by_group": ["group"],
    "train/stiffness_by_group_matrix": ["group", "group"],
    "train/contributions": ["example"],
}
STEPS = (0, 1, 2, 3, 5, 8, 13, 22, 36, 60, 100, 170, 280)


@functools.cache
def digits():
    return load_digits()


def config(noise=0.5, learning_rate=0.1):
    return {
        "kind": "Classification",
        "data": {"kind": "Digits"},
        "noise": {"kind": "LabelNoise", "fraction": noise},
        "model": {"kind": "FullyConnected", "width": 64, "depth": 3},
        "learning_rate": learning_rate,
        "steps": STEPS[-1],
    }


def run(path, seed=0, *, noise=0.5, learning_rate=0.1, diverges_at=None, ends_at=None, probes=True):
    """A run of the whole schema.

    `diverges_at`: nan from that step on. `ends_at`: killed there, not finished.
    """
    rng = np.random.default_rng(seed)
    manifest = {"device": "cpu", "axes": AXES}
    with Run.open(path, config(noise, learning_rate), seed=seed, manifest=manifest) as made:
        for step in STEPS:
            if ends_at is not None and step > ends_at:
                return made
            made.append(
                record(
                    step,
                    rng,
                    noise,
                    np.nan if diverges_at is not None and step >= diverges_at else 1.0,
                    probes,
                )
            )
        if probes:
            labels = digits().target[:EXAMPLES]
            groups = {
                "group": (np.arange(EXAMPLES) < noise * EXAMPLES).astype(np.int32),
                "group_names": ["pristine", "corrupt"],
            }
            made.save("examples-train", inputs=digits().data[:EXAMPLES], labels=labels, **groups)
        made.finish({"step": STEPS[-1]})
    return made


def record(step, rng, noise, number, probes=True):
    """What is recorded at a step; `number` is 1, or nan where the run has diverged. The probe
    `train` skips every other record.
    """
    progress = number * step / STEPS[-1]
    jitter = lambda scale: scale * rng.normal()
    values = {
        "step": step,
        "train_loss": 2.3 * (1 - progress) + 0.1 + jitter(0.02),
        "train_accuracy": 0.1 + 0.85 * progress + jitter(0.01),
        "test_accuracy": 0.1 + (0.85 - noise) * progress + jitter(0.01),
        "corrupt_accuracy": np.nan if noise == 0 else 0.1 + 0.8 * progress**2,
    }
    if not probes:
        return values
    helped = 1 + 30 * np.exp(-5 * progress) * np.exp(jitter(0.1)) * (1.5 - noise)
    if STEPS.index(step) % 2 == 0:
        contributions = rng.normal(3, 2, EXAMPLES) - 2 * (np.arange(EXAMPLES) < noise * EXAMPLES)
        values |= {
            "train/m_coherence": helped,
            "train/gsnr": 0.1 * helped,
            "train/m_coherence_by_layer": {name: helped * 2.0**-i for i, name in enumerate(LAYERS)},
            "train/gsnr_by_layer": {name: 0.1 * helped * 2.0**i for i, name in enumerate(LAYERS)},
            "train/m_coherence_by_group": [helped, 1 + 0.2 * helped],
            "train/stiffness_by_group_matrix": (
                number * (np.eye(2) * 0.8 - 0.1 + 0.02 * rng.normal(size=(2, 2)))
            ).tolist(),
            "train/contributions": (number * contributions / contributions.mean()).tolist(),
        }
    if step % 4 == 0:
        values["test/m_coherence"] = 0.8 * helped
    return values
