"""A classifier trained under label noise: the settings of one run, and the problem they make.

The settings are plain values (no JAX here); `build` imports what it needs.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from coherence.lab.settings import (
    MLP,
    Datasets,
    LabelNoises,
    Networks,
    OutputLosses,
    StoppingRules,
    digits,
    label_noise,
    softmax_cross_entropy,
)

from .programs import PROGRAMS
from .run_settings import RunSettings, initial_parameters, load
from .samples import make_probes, probe_name, stream, stream_key

if TYPE_CHECKING:
    from .problem import Problem

_PARAMS, _LABELS, _SAMPLE, _DATA = range(4)  # what a seed's separate random streams are for
_GRADIENT_QUANTITIES = ("m_coherence", "evidence", "gradient_norm")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification(RunSettings):
    """Settings of a run: data, label noise, network, aggregator, optimizer, length, measurements.

    Recorded are the loss and the accuracy on the training and the test examples, and the accuracy
    on the pristine and the corrupt training examples, against the labels that are trained on.
    """

    data: Datasets = digits()
    noise: LabelNoises = label_noise()
    model: Networks = MLP()
    loss: OutputLosses = softmax_cross_entropy()
    """Of the network's outputs and the label."""
    stopping: StoppingRules | None = None
    """When to stop early. Rules are asked at every measurement; those about gradients look at the
    sample of the first probe of training examples."""

    def describe(self) -> str:
        """What was run, in a few words: `digits (1,437 examples), MLP 64-256-10`."""
        data, _ = self._drawn(load, 0, _DATA)
        net = self.model.build(data.outputs).describe(data.x_train[0].size)
        return f"{self._described(load)}, {net}"

    def build(self, seed: int) -> Problem:
        """The `Problem` of one seed; its data and label noise are drawn here, once."""
        import jax

        from .problem import Problem

        clean, drawn = self._drawn(load, seed, _DATA)
        data, corrupt = self.noise.build()(clean, stream(seed, _LABELS))
        model = self.model.build(data.outputs)
        loss = PROGRAMS.get(_loss, model, self.loss)
        arrays = {
            "train": (clean.x_train, data.y_train),
            "test": (clean.x_test, clean.y_test),
            "corrupt": corrupt,
        }
        probes, samples = make_probes(
            self.probes,
            loss,
            arrays,
            corrupt=corrupt,
            labels={"train": data.y_train, "test": clean.y_test},
            classes=data.outputs,
            seed=seed,
            purpose=_SAMPLE,
        )
        rule = None if self.stopping is None else self.stopping.build()
        names = () if rule is None else jax.tree.leaves(rule.watch)
        watched = tuple(name for name in _GRADIENT_QUANTITIES if name in names)
        if watched:
            arrays["sample"] = self._stopping_sample(samples)
        key = stream_key(seed, _PARAMS)
        optimizer = self._transformation()
        return Problem(
            loss=loss,
            params=initial_parameters(model, key, clean.x_train[:1]),
            data=arrays,
            optimizer=optimizer,
            per_example=not optimizer.takes_batch_gradient,
            measure=PROGRAMS.get(_measuring, model, self.loss, watched),
            track_batches=self.track_batches,
            stopping=None if rule is None else (rule, rule.watch),
            drawn={
                **drawn,
                "labels": data.y_train,
                "corrupt": corrupt,
                **{f"sample-{name}": index for name, index in samples.items()},
            },
            probes=probes,
        )

    def _stopping_sample(self, samples):
        """The first sample of training examples, pristine and corrupt ones as they come."""
        for probing in self.probes:
            if probing.of == "train":
                return samples[probe_name(probing)]
        raise ValueError(
            "the stopping rule looks at gradients of training examples: add a probe of them, "
            "Probing(of='train')."
        )


def _loss(model, loss):
    from coherence.lab.tasks.classification import loss_of

    return loss_of(model, loss.build())


def _measuring(model, loss, watched):
    """`(params, data) -> {name: number}`; `watched` are read off a sample's gradients."""
    import jax
    import jax.numpy as jnp

    from coherence import metrics
    from coherence.gradients.transform import per_example_value_and_grad
    from coherence.lab.tasks.classification import evaluate

    score = evaluate(model, loss.build())
    differentiate = per_example_value_and_grad(_loss(model, loss))

    def measure(params, data):
        (x, y), corrupt = data["train"], data["corrupt"]
        test = score(params, *data["test"])
        # One pass over the training examples for all three means: only the sums are mapped.
        weights = jnp.stack([jnp.ones_like(corrupt), ~corrupt, corrupt])
        train = jax.vmap(score, (None, None, None, 0))(params, x, y, weights)
        accuracy, pristine, noisy = train.accuracy
        measured = {
            "train_loss": train.loss[0],
            "train_accuracy": accuracy,
            "test_loss": test.loss,
            "test_accuracy": test.accuracy,
            "pristine_accuracy": pristine,
            "corrupt_accuracy": noisy,
        }
        if watched:
            sample = data["sample"]
            _, gradients = differentiate(params, (x[sample], y[sample]))
            measured |= {name: getattr(metrics, name)(gradients) for name in watched}
        return measured

    return measure
