"""Labels of axes: quantities in words with units, which are logarithmic, how ticks read."""

from __future__ import annotations

import re
import textwrap

import numpy as np
from numpy.typing import NDArray

from .records import split

WORDS = {
    "m_coherence": "examples helped (m-coherence)",
    "alpha": "alpha, in [0, 1]",
    "alpha_unbiased": "alpha without its floor (unbiased)",
    "alpha_between": "alpha between groups",
    "train_loss": "training loss",
    "train_accuracy": "training accuracy",
    "pristine_accuracy": "pristine examples fitted",
    "corrupt_accuracy": "corrupt examples fitted",
    "gradient_norm": "norm of the mean gradient",
    "shares_by_group": "share of the step (f)",
    "noise_scale": "noise scale (examples)",
    "noise_squared_norm": "squared norm of the population's gradient",
    "noise_trace": "variance of the gradients (trace)",
    "norm_test": "relative standard error (norm test)",
    "gsnr": "signal-to-noise ratio (GSNR)",
    "mean_gsnr": "signal-to-noise ratio (mean GSNR)",
    "one_step_generalization_ratio": "one-step generalization ratio",
    "cosine_stiffness": "stiffness (mean cosine)",
    "sign_stiffness": "stiffness (mean sign)",
    "stiffness": "stiffness, in [-1, 1]",
}
"""Labels, with units where a quantity has some; others are labelled with their names."""
ORTHOGONAL = {"m_coherence": 1.0}
"""Quantities with a value for pairwise orthogonal gradients that does not depend on m."""
_PARTS = re.compile("_by_[a-z]+(_matrix)?$")
_DECADES = 1.3  # positive values that span more are easier to read on a logarithmic axis


def label(name: str) -> str:
    """An axis' label, in lines that fit beside a panel.

    `train/m_coherence_by_layer` is "examples helped (m-coherence)".
    """
    quantity = _PARTS.sub("", split(name)[1])
    return textwrap.fill(WORDS.get(quantity, quantity.replace("_", " ")), 24)


def heading(name: str) -> str:
    """A quantity's name with its probe: `m-coherence by layer, probe train`."""
    probe, quantity = split(name)
    words = quantity.replace("m_coherence", "m-coherence").replace("_", " ")
    return f"{words}, probe {probe}" if probe else words


def is_share(name: str) -> bool:
    """Whether a quantity is a share, from 0 to 1."""
    return name.endswith("accuracy")


def is_logarithmic(name: str, values: NDArray) -> bool:
    """Whether values belong on a logarithmic axis.

    All have to be positive, and m-coherence or spanning many times their smallest.
    """
    finite = values[np.isfinite(values)]
    if not finite.size or finite.min() <= 0 or is_share(name):
        return False
    if split(name)[1].startswith("m_coherence"):
        return True
    return bool(np.log10(finite.max() / finite.min()) > _DECADES)


def is_spread_out(steps: NDArray) -> bool:
    """Whether steps were chosen ever farther apart, for a logarithmic axis."""
    gaps = np.diff(steps)
    return len(gaps) > 3 and bool(gaps[-1] > 4 * gaps[0])


def fitted(title: str, columns: int) -> str:
    """A title broken into lines that fit one of several panels side by side."""
    return textwrap.fill(title, 84 // columns)


def plain(value: float, _position: float | None = None) -> str:
    """A tick of a logarithmic axis as a plain number, where a reader would write it so."""
    if 1e-3 <= value < 1e5:
        return f"{value:g}"
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")


def sparse(value: float, _position: float | None = None) -> str:
    """A tick between powers of ten: 2 and 5 alone, the others have no room."""
    return plain(value) if f"{value:.0e}"[0] in "25" else ""
