"""The settings of a generator and a discriminator that are trained against each other.

The settings are plain values (no JAX here); `build` imports what it needs.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

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

from .programs import PROGRAMS
from .run_settings import RunSettings, initial_parameters, load_folded, transformation
from .samples import fixed_keys, make_probes, stream_key

if TYPE_CHECKING:
    from .problem import Problem

_PARAMS, _SAMPLE, _NOISE, _KEYS, _DATA = range(5)  # what a seed's separate random streams are for


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adversarial(RunSettings):
    """One run: examples, two players, their objective, aggregators and optimizers, measurements.

    Recorded are the means over examples of both players' losses (`generator_loss`,
    `discriminator_loss`) and of how real an example and the fake look (`real_score`,
    `fake_score`), each as `train_...` and `test_...`, with keys that stay the same throughout the
    run; and the root mean square of each player's parameters. Where a step of either would not be
    finite, the player with the larger parameters has diverged: its `..._rms` is nan from then on,
    and the other keeps its parameters, for its losses mean nothing any more. Every probe also
    records `by_player_m_coherence` and `by_player_mean_squared_norm` of each player's gradients.
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

    def describe(self) -> str:
        """What was run: `digits (1,437 examples), GAN 16-128-128-64 against 64-128-128-1`."""
        self._examples(0)  # refuses what does not go together
        return f"{self._described(self._load)}, {self.model.build().describe()}"

    def build(self, seed: int) -> Problem:
        """The `Problem` of one seed."""
        from .problem import Problem

        (data, drawn), model = self._examples(seed), self.model.build()
        arrays: dict[str, Any] = {
            "train": self._inputs(data.x_train, data.y_train),
            "test": self._inputs(data.x_test, data.y_test),
            "keys": fixed_keys(seed, _KEYS, train=len(data.x_train), test=len(data.x_test)),
        }
        options = (model, self.objective, self.penalty)
        loss = PROGRAMS.get(_loss, *options)
        probes, samples = make_probes(
            map(_by_player, self.probes),
            loss,
            {part: (*arrays[part], *arrays["keys"][part]) for part in ("train", "test")},
            corrupt=np.zeros(len(data.x_train), bool),
            labels={"train": data.y_train, "test": data.y_test},
            classes=data.outputs,
            seed=seed,
            purpose=_SAMPLE,
        )
        example = (array[:1] for array in arrays["train"])
        optimizer = self._transformation()
        return Problem(
            loss=loss,
            params=initial_parameters(model, stream_key(seed, _PARAMS), *example),
            data=arrays,
            optimizer=optimizer,
            per_example=not optimizer.takes_batch_gradient,
            measure=PROGRAMS.get(_measuring, *options),
            track_batches=self.track_batches,
            drawn={**drawn, **{f"sample-{name}": index for name, index in samples.items()}},
            probes=probes,
            noise=stream_key(seed, _NOISE),
        )

    def _load(self, data):
        return load_folded(data, tuple(self.model.shape))

    def _examples(self, seed):
        data, drawn = self._drawn(self._load, seed, _DATA)
        if self.model.classes not in (0, len(data.classes)):
            raise ValueError(
                f"GAN(classes={self.model.classes}) is told one of so many labels; {data.name} has "
                f"{len(data.classes)}. Labels out of range would tell it nothing."
            )
        return data, drawn

    def _inputs(self, x, y):
        return (x, y) if self.model.classes else (x,)

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
    from coherence.lab.tasks.adversarial import PLAYERS
    from coherence.optim import Aggregator

    players = dict(zip(PLAYERS, (generator, discriminator)))

    def init(params):
        parts = {name: part.init(params["params"][name]) for name, part in players.items()}
        return {"step": np.int32(0), **parts}

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

    from coherence.lab.tasks.adversarial import PLAYERS

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


def _loss(model, objective, penalty):
    from coherence.lab.tasks.adversarial import adversarial_loss

    return adversarial_loss(model, objective, penalty=penalty)


def _measuring(model, objective, penalty):
    """`(params, data) -> {part_term: mean}`, and the size of each player's parameters."""
    import jax

    from coherence.lab.tasks.adversarial import PLAYERS, adversarial_losses
    from coherence.lab.tasks.autoencoding import evaluate

    means = evaluate(adversarial_losses(model, objective, penalty=penalty))

    def measure(params, data):
        measured: dict[str, jax.Array] = {}
        for part in ("train", "test"):
            of_part = means(params, (*data[part], *data["keys"][part]))
            measured |= {f"{part}_{name}_loss": getattr(of_part, name) for name in PLAYERS}
            scores = ("real_score", "fake_score")
            measured |= {f"{part}_{name}": getattr(of_part, name) for name in scores}
        for name in PLAYERS:
            measured[f"{name}_rms"] = _rms(params["params"][name])
        return measured

    return measure
