"""The settings of each agent as they stand in params.yaml, below `search`.

Same names as in `gnnrl/agents`, where each is explained; a test holds the two together.
"""

from __future__ import annotations

from gnnrl.settings import (
    Count,
    CountOrNone,
    NotNegative,
    Positive,
    Probability,
    Section,
    Share,
    Switch,
)


class Gnn(Section):
    """The size of the encoder; blind and message_passing are there for ablations."""

    hidden: Count
    layers: Count
    blind: Switch
    message_passing: Switch


class PPO(Section):
    """Proximal policy optimisation."""

    learning_rate: Positive
    n_epochs: Count
    batch_size: Count
    clip_range: Positive
    gamma: Probability
    gae_lambda: Probability
    ent_coef: NotNegative
    vf_coef: NotNegative
    max_grad_norm: Positive
    target_kl: Positive
    initial_action: Probability
    initial_std: Positive
    imitation_coef: NotNegative
    elites: CountOrNone
    credit: Switch
    credit_decay: Probability
    freeze_encoder: Switch


class DDPG(Section):
    """Deep deterministic policy gradient."""

    actor_learning_rate: Positive
    critic_learning_rate: Positive
    gamma: Probability
    tau: Share
    batch_size: Count
    buffer_size: Count
    updates: Count
    max_updates: Count
    warmup: CountOrNone
    noise_std: Positive
    noise_decay: Share
    max_grad_norm: Positive
    initial_action: Probability


class Reinforce(Section):
    """Policy gradient with a leave-one-out baseline."""

    learning_rate: Positive
    gamma: Probability
    ent_coef: NotNegative
    max_grad_norm: Positive
    initial_action: Probability
    initial_std: Positive
    freeze_encoder: Switch


class A3C(Section):
    """Asynchronous advantage actor-critic."""

    learning_rate: Positive
    gamma: Probability
    gae_lambda: Probability
    ent_coef: NotNegative
    vf_coef: NotNegative
    max_grad_norm: Positive
    initial_action: Probability
    initial_std: Positive
    max_staleness: CountOrNone
    freeze_encoder: Switch


class Annealing(Section):
    """Simulated annealing."""

    temperature: Positive
    cooling: Share
    step: Positive
    moved: Share
    initial_action: Probability


class Sensitivity(Section):
    """Every decision alone first, then what is near."""

    keep_ratio: Probability
    step: Positive
    moved: Share


class Evolution(Section):
    """CMA-ES, a kept library."""

    initial_action: Probability
    sigma: Positive
    popsize: CountOrNone
    diagonal: Switch


class ShortTraining(Section):
    """How long a subnet is trained before it is scored; `epochs` may be a part of one."""

    epochs: Positive
    batch_size: Count
    learning_rate: Positive
    momentum: Probability
    weight_decay: NotNegative


class PlackettLuce(Section):
    """Policy gradient on subsets, drawn by Gumbel-top-k."""

    learning_rate: Positive
    table_learning_rate: NotNegative
    ent_coef: NotNegative
    max_grad_norm: Positive
    credit: Switch
    credit_decay: Share
    freeze_encoder: Switch


class Swaps(Section):
    """Simulated annealing on subsets."""

    acceptance: Share
    cooling: Share
    moved: Share
    patience: Count
    reheat: Share
    learned: Switch
