"""The settings of all agents, and flat parameters distributed over them.

They stand apart from the agents, so that they are checked without PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, field_validator

from gnnrl.errors import UserError
from gnnrl.registry import hint
from gnnrl.settings import (
    BelowOne,
    Count,
    CountOrNone,
    Float,
    NotNegative,
    Positive,
    Probability,
    Settings,
    Share,
    Switch,
)


class A3CSettings(Settings):
    """Names as in Stable-Baselines3; the defaults are for searches of a few hundred evaluations."""

    learning_rate: Positive = 5e-3
    """Of Adam."""
    gamma: Probability = 1.0
    """Discount."""
    gae_lambda: Probability = 1.0
    """Of the generalised advantage estimate; 1: the whole return, as in the paper."""
    ent_coef: NotNegative = 0.001
    """Weight of the entropy in the loss."""
    vf_coef: NotNegative = 0.5
    """Weight of the value loss."""
    max_grad_norm: Positive = 0.5
    """Every gradient is clipped to this norm."""
    initial_action: Probability = 0.7
    """Mean of the first actions: a ratio, or the chance of True."""
    initial_std: Positive = 0.7
    """Spread of the first actions, before the sigmoid."""
    max_staleness: CountOrNone = 8
    """Updates between the policy that acted and the one that learns, at most."""
    freeze_encoder: Switch = False
    """Train the heads only, for an agent from another network."""


class PPOSettings(Settings):
    """Names as in Stable-Baselines3; the defaults are for searches of 100 to 200 evaluations."""

    learning_rate: Positive = 4e-3
    """Of Adam."""
    n_epochs: Count = 10
    """Passes over a rollout."""
    batch_size: Count = 256
    """Transitions of a minibatch."""
    clip_range: Positive = 0.3
    """Schulman et al.'s Eq. 7, on the ratio of each choice."""
    gamma: Probability = 1.0
    """Discount."""
    gae_lambda: Probability = 0.95
    """Of the generalised advantage estimate."""
    ent_coef: NotNegative = 0.001
    """Weight of the entropy in the loss."""
    vf_coef: NotNegative = 0.5
    """Weight of the value loss."""
    max_grad_norm: Positive = 0.5
    """Gradients are clipped to this norm."""
    target_kl: Positive = 0.2
    """Per choice; an update ends when it is exceeded by half."""
    initial_action: Probability = 0.7
    """Mean of the first actions: a ratio, or the chance of True."""
    initial_std: Positive = 1.0
    """Spread of the first actions, before the sigmoid."""
    imitation_coef: NotNegative = 0.2
    """Weight of the best episodes so far."""
    elites: CountOrNone = 8
    """How many of them are remembered."""
    credit: Switch = True
    """Estimate an advantage per decision where the same graph is decided again and again."""
    credit_decay: Probability = 0.8
    """Weight of an action that was tried, for every update since."""
    freeze_encoder: Switch = False
    """Train the heads only, for an agent from another network."""


class DDPGSettings(Settings):
    """AMC's values where they carry over; more updates, as evaluations are expensive."""

    actor_learning_rate: Positive = 1e-3
    """Of Adam, for the actor."""
    critic_learning_rate: Positive = 3e-3
    """Of Adam, for the critic."""
    gamma: Probability = 1.0
    """Discount."""
    tau: Share = 0.02
    """How far the target networks follow at each update."""
    batch_size: Count = 64
    """Transitions of a minibatch."""
    buffer_size: Count = 2000
    """Transitions kept for replay."""
    updates: Count = 4
    """Gradient steps per transition collected."""
    max_updates: Count = 64
    """Gradient steps per call of `learn`, at most."""
    warmup: CountOrNone = 32
    """First decisions, with the full noise around `initial_action`."""
    noise_std: Positive = 0.3
    """Of the truncated normal noise, in the unit of the action."""
    noise_decay: Share = 0.98
    """Per decision after the warm-up."""
    max_grad_norm: Positive = 1.0
    """Gradients are clipped to this norm."""
    initial_action: Probability = 0.7
    """Mean of the first actions."""
    whole_returns: Switch = False
    """Learn from what whole episodes brought (AMC, AGMC), not from the target networks' guess."""
    freeze_encoder: Switch = False
    """Train the heads only, for an agent from another network."""


class ReinforceSettings(Settings):
    """The defaults are for searches of a few hundred evaluations."""

    learning_rate: Positive = 5e-3
    """Of Adam."""
    gamma: Probability = 1.0
    """Discount."""
    ent_coef: NotNegative = 0.001
    """Weight of the entropy in the loss."""
    max_grad_norm: Positive = 1.0
    """Gradients are clipped to this norm."""
    initial_action: Probability = 0.7
    """Mean of the first actions: a ratio, or the chance of True."""
    initial_std: Positive = 0.7
    """Spread of the first actions, before the sigmoid."""
    freeze_encoder: Switch = False
    """Train the heads only, for an agent from another network."""


class PlackettLuceSettings(Settings):
    """Policy gradient on subsets; the defaults are for a hundred to some thousand evaluations."""

    learning_rate: Positive = 2e-3
    """Of the network that scores decisions by their features."""
    table_learning_rate: NotNegative = 0.05
    """Of a score for each decision by itself; 0: none."""
    ent_coef: NotNegative = 0.0
    """Weight of the entropy in the loss."""
    max_grad_norm: Positive = 1.0
    """Gradients are clipped to this norm."""
    credit: Switch = True
    """Estimate the value of single decisions; false: the baseline alone."""
    credit_decay: Share = 0.995
    """Weight of a subset for every update since it was tried."""
    freeze_encoder: Switch = False
    """Train the heads only, for an agent from another network."""


class AnnealingSettings(Settings):
    """Simulated annealing; temperatures are in units of the spread of the first batch's rewards."""

    temperature: Positive = 0.5
    """At the start."""
    cooling: Share = 0.98
    """Factor on the temperature at every episode."""
    step: Positive = 0.25
    """Standard deviation of a move, in the unit of the action (continuous)."""
    moved: Share = 0.25
    """Fraction of the decisions that a move changes, at least one."""
    initial_action: Probability = 0.7
    """Where it starts (continuous; binary: the chance of True)."""


class SwapSettings(Settings):
    """Annealing on subsets; the first temperature is found from how much moves lose at first."""

    acceptance: Annotated[Float, Field(gt=0, lt=1)] = 0.3
    """Chance of taking a move of average loss, at the start."""
    cooling: Share = 0.995
    """Factor on the temperature, and on the size of swaps, at every episode."""
    moved: Share = 0.25
    """Fraction of what can be exchanged that a move does exchange, at the start."""
    patience: Count = 300
    """Episodes without a better one after which it goes back to the best."""
    reheat: Share = 0.1
    """The temperature it then has, as a fraction of the first."""
    learned: Switch = True
    """Exchange what earlier moves speak for; false: anything."""


class EvolutionSettings(Settings):
    """What CMA-ES is given; the coordinates are the decisions, in [0, 1]."""

    initial_action: Probability = 0.7
    """Mean of the first generation."""
    sigma: Positive = 0.2
    """Spread of the first generation."""
    popsize: CountOrNone = 0
    """Actions of a generation, at least 2; 0: 4 + 3 ln(decisions), the library's choice."""
    diagonal: Switch = True
    """A diagonal covariance, which few evaluations can still estimate."""

    @field_validator("popsize")
    @classmethod
    def _more_than_one(cls, popsize: int) -> int:
        if popsize == 1:
            raise ValueError("must be 0 or at least 2, got 1")
        return popsize


class EvoPressSettings(Settings):
    """The switches of an offspring; a generation is `search.batch` plans."""

    initial_action: Probability = 0.5
    """Where it starts."""
    step: Positive = 0.2
    """The most that a switch gives to one decision and takes from another one."""
    switches: Count = 3
    """The most switches of one offspring; fewer are more likely."""


class MoveSettings(Settings):
    """The moves from the best action."""

    step: Positive = 0.1
    """Standard deviation of a move at first, in the unit of the action."""
    moved: Share = 0.25
    """Fraction of the decisions that a move changes, at least one."""


class SensitivitySettings(MoveSettings):
    """How far a decision is pruned when it is tried alone; the moves after that."""

    keep_ratio: BelowOne = 0.5
    """Of the one decision that is tried."""


class RankingSettings(Settings):
    """How filters are chosen by their importance."""

    shuffled: Switch = False
    """as many of each part as the scores say, but which of them is left to chance"""


class UniformSettings(Settings):
    """The one decision."""

    level: Probability = 0.5
    """The action of every decision; binary: the chance of True."""


def split(parameters: Mapping[str, Any], *kinds: type[Settings]) -> list[Any]:
    """Return one settings object per kind, each with the parameters that it names."""
    known = {name for kind in kinds for name in kind.model_fields}
    for name in parameters:
        if name not in known:
            near = hint(name, sorted(known), f"known: {', '.join(sorted(known)) or 'none'}")
            raise UserError(f"unknown agent parameter {name!r}: {near}")
    return [
        kind(**{name: parameters[name] for name in kind.model_fields if name in parameters})
        for kind in kinds
    ]
