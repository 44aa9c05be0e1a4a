"""What is known of every example at one checkpoint."""

from typing import Any, NamedTuple


class Scores(NamedTuple):
    """Scores of m examples at one checkpoint, float64 [m]; nan where one is not defined.

    loss: of the example.
    margin, confidence, el2n: of the same names; nan where no `logits` were given.
    correct: 1 where the given label is predicted, 0 where not; nan without `logits`.
    grand: the gradient's norm.
    agreement: mean cosine with the other examples.
    own_class, rivals: the same with those of its own class, and with all other classes'.
    contribution: `coherence.metrics.contributions`, its part of the step in average examples.
    alpha_without: alpha of the sample without it.
    pull: g_i . mean of the others' gradients: what a step on them brings it, over the learning
        rate. In units of the loss over it.
    weight_alignment: of the same name.
    """

    loss: Any
    margin: Any
    confidence: Any
    el2n: Any
    correct: Any
    grand: Any
    agreement: Any
    own_class: Any
    rivals: Any
    contribution: Any
    alpha_without: Any
    pull: Any
    weight_alignment: Any
