"""The section `search` of params.yaml."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from gnnrl.agents.a3c import A3CSettings
from gnnrl.agents.annealing import AnnealingSettings
from gnnrl.agents.annealing_subset import SwapSettings
from gnnrl.agents.ddpg import DDPGSettings
from gnnrl.agents.evolution import EvolutionSettings
from gnnrl.agents.ppo import PPOSettings
from gnnrl.agents.reinforce import ReinforceSettings
from gnnrl.agents.reinforce_subset import PlackettLuceSettings
from gnnrl.agents.sensitivity import SensitivitySettings
from gnnrl.params.compatibility import (
    RANKINGS,
    refuse_constraint,
    refuse_misfits,
    refuse_statistics,
    refuse_steps,
    refuse_trainings,
    settings_of,
)
from gnnrl.pruning.bottleneck import BottleneckSettings
from gnnrl.rl.gnn import GnnSettings
from gnnrl.settings import (
    Count,
    CountOrNone,
    Encoder,
    NotNegative,
    Positive,
    Probability,
    RewardKind,
    Seed,
    Settings,
    Share,
    Space,
    Sparsity,
    Weights,
)
from gnnrl.training.recipe import DistillationSettings, TrainingRecipe


class ShortTraining(Settings):
    """How long a subnet is trained before it is scored; `epochs` may be a part of one."""

    epochs: Positive = 1.0
    """Over the training images; less than one is that part of them."""
    batch_size: Count = 64
    """Images of a step."""
    learning_rate: Positive = 0.05
    """Constant."""
    momentum: Probability = 0.9
    """Of the gradient."""
    weight_decay: NotNegative = 5e-4
    """Of all weights."""


class Students(Settings):
    """Subnets are trained before they are scored; the fields are explained in `Schooling`."""

    recipe: TrainingRecipe = TrainingRecipe()
    """The training schedule of every student."""
    distillation: DistillationSettings = DistillationSettings(alpha=0.9)
    """What the dense network teaches them."""
    ease_in: CountOrNone = 15
    """Updates until being over the budget is punished in full (n2n_constrained)."""
    keep: CountOrNone = 5
    """How many of the best students are kept as checkpoints."""


class Rescore(Settings):
    """A second evaluation of the best plans of a search: how many, on how many training images."""

    plans: Count
    """How many of the best plans are scored again."""
    images: Count
    """On how many training images."""


class Ray(Settings):
    """Workers on Ray; the fields are explained in `gnnrl/search/parallel/workers.py`."""

    workers: Count = 2
    """Processes, each with a copy of network, images and agent."""
    cpus: Positive = 1.0
    """Of each worker, as Ray counts them."""
    gpus: NotNegative = 0.0
    """Of each worker; fractions share a GPU."""
    timeout_s: Positive = 3600.0
    """Seconds that one evaluation may take."""


AGENTS: dict[str, type[Settings]] = {
    "a3c": A3CSettings,
    "ppo": PPOSettings,
    "ddpg": DDPGSettings,
    "reinforce": ReinforceSettings,
    "annealing": AnnealingSettings,
    "plackett_luce": PlackettLuceSettings,
    "swaps": SwapSettings,
    "evolution": EvolutionSettings,
    "sensitivity": SensitivitySettings,
}
"""The settings of agents, by the key that they stand under."""


class Budget(Settings):
    """What the subnet may cost, as a fraction of the dense network: exactly one is not null."""

    flops: Share | None = None
    """Multiply-accumulates."""
    parameters: Share | None = None
    """Weights and biases."""
    latency: Share | None = None
    """Measured milliseconds; needs search.latency_table."""
    sparsity: Sparsity | None = None
    """Instead, the fraction of filters that is removed (space filters)."""

    @model_validator(mode="after")
    def _one(self) -> Budget:
        given = [name for name, value in self if value is not None]
        if len(given) != 1:
            raise ValueError(
                "needs exactly one of flops, parameters, latency and sparsity, got "
                f"{', '.join(given) or 'none'}: set the others to null"
            )
        return self


class Reward(Settings):
    """How a plan is scored on the reward images."""

    kind: RewardKind = "loss"
    """accuracy; minus loss, divergence from the dense network, jensen_shannon; n2n."""
    statistics: Literal["matched", "batch", "images", "kept"] = "matched"
    """Of batch norm: matched (to the dense network's), batch, kept; images: of training images."""
    statistics_images: CountOrNone = 0
    """Reward images that give matched or batch statistics for all, faster with 100; 0: all."""
    recalibration_images: Count = 256
    """For `images`: measured on so many training images."""
    compensation: Literal["none", "gram"] = "none"
    """none; gram: layers make up for inputs that they lost."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the subnet computes in; bfloat16 ranks plans alike and is faster where supported."""
    batch_size: Count = 512
    """Images that pass the subnet at once."""
    race: CountOrNone = 0
    """Images on which losers of a batch are recognised and stopped; 0: none are."""
    training: ShortTraining | None = None
    """Train subnets before they are scored; absent: they are not."""

    @model_validator(mode="after")
    def _statistics_can_be_measured(self) -> Reward:
        refuse_statistics(self.statistics, self.statistics_images, self.batch_size)
        return self


class Search(Settings):
    """What is searched for, by whom, at what cost.

    The settings of an agent stand under its name; those of agents that are not used may be absent.
    """

    seed: Seed = 0
    """Of the search."""
    space: Space = "channels"
    """channels, weights, layers, filters."""
    agent: str = "ppo"
    """ppo, ddpg, reinforce, a3c, annealing, evolution, sensitivity, random ..."""
    agent_from: str | None = None
    """The agent.pt of another search, on any network, to start with."""
    encoder: Encoder = "multi_stage"
    """Of ppo, ddpg, reinforce and a3c: plain, multi_stage."""
    budget: Budget = Budget(flops=0.5)
    """Fraction of the dense network's cost."""
    evaluations: Count = 96
    """What may be spent; 1 is 500 images passed through the network."""
    batch: Count = 8
    """Plans between two updates of the agent."""
    max_steps: Count = 1
    """1: a plan in one go; more: the network is pruned step by step."""
    importance: str = "l1"
    """l1, l2, batch_norm, fpgm, reconstruction, bottleneck, ...: docs/concepts.md."""
    prior: Literal["none", "reconstruction", "bottleneck"] = "none"
    """none; actions depart from an allocation: reconstruction, bottleneck."""
    calibration_images: Count = 1024
    """Unlabelled training images for importance, prior, compensation."""
    latency_table: str | None = None
    """A file of `python -m stages.latency`, for a budget of latency."""
    weights: Weights = "final"
    """Weights that are searched: initial, final or the epoch of a snapshot."""
    min_channels: Count = 1
    """That every group keeps."""
    multiple: Count = 1
    """Widths are rounded to multiples of it."""
    min_fraction: Probability | None = None
    """Of its filters, that every layer keeps (space filters)."""
    reward: Reward = Reward()
    """How a plan is scored."""
    gnn: GnnSettings = GnnSettings()
    """The encoder of agents that have one."""
    a3c: A3CSettings | None = None
    """Asynchronous advantage actor-critic."""
    ppo: PPOSettings | None = None
    """Proximal policy optimisation."""
    ddpg: DDPGSettings | None = None
    """Deep deterministic policy gradient."""
    reinforce: ReinforceSettings | None = None
    """Policy gradient with a leave-one-out baseline."""
    annealing: AnnealingSettings | None = None
    """Simulated annealing."""
    plackett_luce: PlackettLuceSettings | None = None
    """Reinforce in the space filters."""
    swaps: SwapSettings | None = None
    """Annealing in the space filters."""
    evolution: EvolutionSettings | None = None
    """CMA-ES."""
    sensitivity: SensitivitySettings | None = None
    """Each decision alone first, then what is near."""
    bottleneck: BottleneckSettings = BottleneckSettings()
    """How long gates are trained (importance and prior bottleneck)."""
    rescore: Rescore | None = None
    """The best plans are scored again on other images; absent: the best reward decides."""
    students: Students | None = None
    """Subnets are trained with a teacher before they are scored; absent: they are not."""
    ray: Ray | None = None
    """Workers; absent: this process evaluates."""
    own: dict[str, Any] | None = None
    """Settings of an agent named package.module:function."""

    @model_validator(mode="after")
    def _agent_suits_the_space(self) -> Search:
        refuse_misfits(self.space, self.agent, self.budget.sparsity)
        refuse_steps(self.space, self.max_steps, self.prior)
        short = self.reward.training is not None
        refuse_trainings(short, self.students is not None, self.reward.race)
        refuse_constraint(self.reward.kind, self.students is not None)
        return self

    @property
    def agent_section(self) -> str:
        """The key that the agent's settings stand under."""
        return settings_of(self.agent, self.space)

    @property
    def criterion(self) -> str:
        """What channels are scored by: a ranking agent's own criterion, else the importance."""
        return RANKINGS.get(self.agent, self.importance)

    def task_parameters(self) -> dict[str, Any]:
        """Return what the task is put together with, flat."""
        return {
            "space": self.space,
            "budget": self.budget.model_dump(),
            "criterion": self.criterion,
            "prior": self.prior,
            "calibration_images": self.calibration_images,
            "latency_table": self.latency_table,
            "compensation": self.reward.compensation,
            "reward": self.reward.kind,
            "statistics": self.reward.statistics,
            "statistics_images": self.reward.statistics_images,
            "recalibration_images": self.reward.recalibration_images,
            "precision": self.reward.precision,
            "batch_size": self.reward.batch_size,
            "race": self.reward.race,
            "max_steps": self.max_steps,
            "min_channels": self.min_channels,
            "multiple": self.multiple,
            "gates": dict(self.bottleneck),
            **({} if self.min_fraction is None else {"min_fraction": self.min_fraction}),
            "training": None if self.reward.training is None else dict(self.reward.training),
            "students": None if self.students is None else self.students.model_dump(),
            "view": "plain" if self.encoder == "plain" else "hierarchical",
        }

    def agent_settings(self) -> dict[str, Any]:
        """Return the settings of the chosen agent, complete."""
        if ":" in self.agent:
            return dict(self.own or {})
        name = self.agent_section
        given = getattr(self, name, None)
        return dict(AGENTS[name]() if given is None and name in AGENTS else given or {})

    def agent_parameters(self) -> dict[str, Any]:
        """Return the flat settings of the chosen agent, its encoder's included if it has one."""
        encoded = self.agent in ("a3c", "ppo", "ddpg", "reinforce")
        encoder = {"encoder": self.encoder, **dict(self.gnn)} if encoded else {}
        return self.agent_settings() | encoder

    @property
    def without_effect(self) -> list[str]:
        """The keys of settings that are given for agents that are not chosen."""
        chosen = "own" if ":" in self.agent else self.agent_section
        given = [name for name in (*AGENTS, "own") if getattr(self, name) is not None]
        return [name for name in given if name != chosen]

    def resolved(self) -> dict[str, Any]:
        """Return everything that the result depends on, the chosen agent's defaults included."""
        values = self.model_dump(mode="json", exclude={*AGENTS, "own", "ray"})
        name = "own" if ":" in self.agent else self.agent_section
        return values | ({name: settings} if (settings := self.agent_settings()) else {})
