"""How much noise each level of a diffusion model has."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class NoiseSchedule:
    r"""The variances that noise is added with, level by level.

    .. math:: q(x_t \mid x_{t-1}) = N(\sqrt{1 - \beta_t}\, x_{t-1}, \beta_t), \qquad
              \bar\alpha_t = \prod_{s \le t} (1 - \beta_s)

    Levels are counted from 0, the least noise, to `levels` - 1: `betas[0]` belongs to the first
    step away from the data.

    Ho, Jain & Abbeel, Denoising Diffusion Probabilistic Models (arXiv:2006.11239), Equations 2, 4.
    """

    betas: tuple[float, ...]

    def __post_init__(self):
        if not self.betas or not all(0 < beta < 1 for beta in self.betas):
            raise ValueError("NoiseSchedule(betas): at least one variance, each in (0, 1).")

    @property
    def levels(self) -> int:
        """How many levels of noise there are, T."""
        return len(self.betas)

    @functools.cached_property
    def abar(self) -> np.ndarray:
        """The share of the data's variance that is left at each level: [T], falling."""
        return np.cumprod(1 - np.array(self.betas))

    def posterior_mean(self, x: np.ndarray, x_t: np.ndarray, t: int) -> np.ndarray:
        r"""The mean of :math:`x_{t-1}` given both :math:`x_t` and the example x.

        .. math:: \tilde\mu_t = \frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1 - \bar\alpha_t}\, x
                  + \frac{\sqrt{1 - \beta_t}\,(1 - \bar\alpha_{t-1})}{1 - \bar\alpha_t}\, x_t

        With :math:`\bar\alpha_{-1} = 1`: at level 0 it is x. Ho et al., Equation 7.
        """
        beta, abar = self.betas[t], self.abar[t]
        before = self.abar[t - 1] if t else 1.0
        of_x = math.sqrt(before) * beta / (1 - abar)
        return of_x * x + math.sqrt(1 - beta) * (1 - before) / (1 - abar) * x_t

    def spaced(self, steps: int) -> np.ndarray:
        """`steps` evenly spaced levels from T - 1 down: T = 200 in 4 steps is 199, 149, 99, 49.

        Raises:
            ValueError: no step, or more steps than levels.
        """
        if not 1 <= steps <= self.levels:
            raise ValueError(
                f"steps: from 1 to the {self.levels} levels of noise that there are, got {steps}."
            )
        return np.ceil(np.arange(steps, 0, -1) * self.levels / steps).astype(int) - 1


def linear_schedule(levels: int = 200, first: float = 1e-3, last: float = 0.06) -> NoiseSchedule:
    """Variances that rise linearly; with the defaults 0.2 % of the data's variance is left.

    Args:
        levels: how many levels of noise there are, at least 1.
        first: the variance of the first step away from the data, in (0, 1).
        last: that of the last step, in (0, 1).

    Ho et al. (arXiv:2006.11239), Section 4, which has 1,000 levels, 1e-4 and 0.02.
    """
    return NoiseSchedule(tuple(np.linspace(first, last, levels).tolist()))


def cosine_schedule(levels: int = 200, offset: float = 0.008) -> NoiseSchedule:
    r"""Less noise at first: :math:`\bar\alpha_t \propto \cos^2(\frac{t/T + s}{1 + s} \pi/2)`.

    Args:
        levels: how many levels of noise there are, at least 1.
        offset: s, which keeps the first variances from being too small; at least 0.

    Nichol & Dhariwal (arXiv:2102.09672), Equation 17; variances are at most 0.999.
    """
    angles = (np.arange(levels + 1) / levels + offset) / (1 + offset) * np.pi / 2
    left = np.cos(angles) ** 2
    return NoiseSchedule(tuple(np.minimum(1 - left[1:] / left[:-1], 0.999).tolist()))
