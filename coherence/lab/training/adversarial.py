"""The settings of a generator and a discriminator that are trained against each other.

The settings are plain values (no JAX here); `build` imports what it needs.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from coherence.lab.settings import (
    GAN,
    AdversarialNetworks,
    Aggregators,
    Datasets,
    Optimizers,
    Probing,
    adam,
    digits,
)

from .generative import GenerativeRun
from .programs import PROGRAMS
from .run_settings import transformation

if TYPE_CHECKING:
    from .problem import Problem

PLAYERS = ("generator", "discriminator")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adversarial(GenerativeRun):
    """Settings of a run: examples, two players, objective, aggregators, optimizers, measurements.

    Recorded are means of both players' losses (`generator_loss`, `discriminator_loss`; `loss` is
    their sum) and of how real an example and its fake look (`real_score`, `fake_score`), and the
    root mean square of each player's parameters. Where a step of either would not be finite, the
    player with the larger parameters has diverged: its `..._rms` is nan from then on, and the other
    keeps its parameters, for its losses mean nothing any more. Every probe also records
    `by_player_m_coherence` and `by_player_mean_squared_norm` of each player's gradients.
    """

    data: Datasets = digits(examples=1000)
    """Folded into the shape of the model's examples."""
    model: AdversarialNetworks = GAN()
    objective: Literal["non_saturating", "saturating", "wasserstein"] = "non_saturating"
    penalty: float = 10.0
    """What a gradient's distance from length 1 costs, of "wasserstein" alone."""
    optimizer: Optimizers = adam(5e-4, b1=0.5)
    """Like `aggregator` the generator's, and the discriminator's unless it has its own."""
    discriminator_optimizer: Optimizers | None = None
    discriminator_aggregator: Aggregators | None = None
    discriminator_steps: int = 0
    """How many steps the discriminator moves alone before the generator moves, alone, for one; 0:
    both move at every step."""
    batch_size: int = 64
    steps: int = 4000
    probes: tuple[Probing, ...] = (Probing(m=256, quantities="light", groups="none"),)
    track_batches: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.objective not in ("non_saturating", "saturating", "wasserstein"):
            raise ValueError(
                "Adversarial(objective): non_saturating, saturating or wasserstein, got "
                f"{self.objective!r}."
            )
        if not self.penalty >= 0 or self.discriminator_steps < 0:
            raise ValueError(
                "Adversarial: penalty and discriminator_steps are at least 0, got "
                f"penalty={self.penalty}, discriminator_steps={self.discriminator_steps}."
            )

    def build(self, seed: int) -> Problem:
        """The `Problem` of one seed."""
        own = dataclasses.replace(self, probes=tuple(map(_by_player, self.probes)))
        return super(Adversarial, own).build(seed).extended(measure=PROGRAMS.get(_sizes))

    def _takes_labels(self):
        return self.model.classes > 0

    def _terms(self, model, data):
        return PROGRAMS.get(_losses, model, self.objective, self.penalty)

    def _transformation(self):
        own = dataclasses.replace(
            self,
            aggregator=self.discriminator_aggregator or self.aggregator,
            optimizer=self.discriminator_optimizer or self.optimizer,
        )
        generator = PROGRAMS.get(transformation, *self._transformations())
        discriminator = PROGRAMS.get(transformation, *own._transformations())
        return two_players(generator, discriminator, self.discriminator_steps)


def _by_player(probing):
    """The probe, which asks for the moments of each player's gradients, too."""
    asked = probing.quantities if isinstance(probing.quantities, tuple) else (probing.quantities,)
    return dataclasses.replace(probing, quantities=(*asked, PROGRAMS.get(_player_moments)))


class PlayerMoments(NamedTuple):
    """Of each player's gradients, by name: how far they agree, and how long they are."""

    m_coherence: dict[str, Any]
    mean_squared_norm: dict[str, Any]


def _player_moments():
    from coherence.lab.tasks.adversarial import player
    from coherence.metrics import moments
    from coherence.probes import Quantity

    def of_players(pooled):
        parts = moments(pooled, by=player)
        coherences = {name: part.m * part.alpha for name, part in parts.items()}
        return PlayerMoments(coherences, {n: p.mean_squared_norm for n, p in parts.items()})

    return Quantity("by_player", of_players)


def two_players(generator, discriminator, discriminator_steps=0):
    """An aggregator and optimizer for each of two players, as one transformation.

    Args:
        generator, discriminator: `Aggregator`s, of the gradients of each player's parameters alone.
        discriminator_steps: as in `Adversarial`.
    """
    import jax.numpy as jnp

    from coherence.optim import Aggregator

    players = dict(zip(PLAYERS, (generator, discriminator)))

    def init(params):
        parts = {name: part.init(params["params"][name]) for name, part in players.items()}
        return {"step": jnp.int32(0), **parts}

    return Aggregator(
        init,
        PROGRAMS.get(_turns, generator.update, discriminator.update, discriminator_steps),
        f"two_players({generator}, {discriminator}, discriminator_steps={discriminator_steps})",
        takes_batch_gradient=generator.takes_batch_gradient and discriminator.takes_batch_gradient,
    )


def _turns(generator, discriminator, alone):
    """The update of `two_players`, from theirs."""
    import jax
    import jax.numpy as jnp

    def move(own, gradients, state, params):
        return own(gradients, state, params)

    def stay(own, gradients, state, params):
        return jax.tree.map(jnp.zeros_like, params), state

    def update(gradients, state, params=None, **extra):
        del extra
        place, players = state["step"] % (alone + 1), params["params"]
        turns = (place == alone, (place < alone) | (alone == 0))
        going, moves, states = _all_finite(players), {}, {}
        for name, own, turn in zip(PLAYERS, (generator, discriminator), turns):
            arguments = (gradients["params"][name], state[name], players[name])
            moves[name], states[name] = jax.lax.cond(
                turn & going,
                functools.partial(move, own),
                functools.partial(stay, own),
                *arguments,
            )
        fine, size = _all_finite(moves), {name: _rms(players[name]) for name in PLAYERS}
        for name, other in (PLAYERS, PLAYERS[::-1]):
            # Of two players that cannot go on, the larger one is at fault, and says so by nan.
            fault = jnp.where(going & ~(size[name] < size[other]), jnp.nan, 0)
            moves[name] = jax.tree.map(lambda x: jnp.where(fine, x, fault), moves[name])
            states[name] = jax.tree.map(
                lambda new, old: jnp.where(fine, new, old), states[name], state[name]
            )
        return {"params": moves}, {"step": state["step"] + 1, **states}

    return update


def _all_finite(tree):
    import jax
    import jax.numpy as jnp

    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))


def _rms(tree):
    """The root mean square of all numbers."""
    import jax
    import jax.numpy as jnp

    leaves = [jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(jnp.mean(jnp.concatenate(leaves) ** 2))


def _losses(model, objective, penalty):
    from coherence.lab.tasks.adversarial import adversarial_losses

    losses = adversarial_losses(model, objective, penalty=penalty)

    def terms(params, example):
        own = losses(params, example)
        return {
            "generator_loss": own.generator,
            "discriminator_loss": own.discriminator,
            "loss": own.total,
            "real_score": own.real_score,
            "fake_score": own.fake_score,
        }

    return terms


def _sizes():
    """`(params, data) -> {PLAYER_rms: number}`."""
    return lambda params, data: {f"{name}_rms": _rms(params["params"][name]) for name in PLAYERS}
