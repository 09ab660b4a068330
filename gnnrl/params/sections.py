"""What each section of params.yaml holds: types and ranges, no values."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from gnnrl.params.agents import (
    A3C,
    DDPG,
    PPO,
    Annealing,
    Evolution,
    Gnn,
    PlackettLuce,
    Reinforce,
    Sensitivity,
    ShortTraining,
    Swaps,
)
from gnnrl.params.suits import (
    RANKINGS,
    refuse_constraint,
    refuse_misfits,
    refuse_statistics,
    refuse_steps,
    refuse_trainings,
    settings_of,
)
from gnnrl.params.training import Distillation, Recipe, Rescore, Students
from gnnrl.params.workers import Ray
from gnnrl.settings import (
    Count,
    CountOrNone,
    Encoder,
    Float,
    Positive,
    Probability,
    RewardKind,
    Section,
    Seed,
    Share,
    Space,
    Sparsity,
    Weights,
)


class Data(Section):
    """Which images, and which of them score the search."""

    name: str
    root: str | None
    reward_images: Count
    reward_from: Literal["train", "test"]
    seed: Seed
    augmentation: str | None
    mean: tuple[Float, ...] | None
    std: tuple[Positive, ...] | None


class Network(Section):
    """The network that is compressed, and its images: channels, height, width."""

    name: str
    input_shape: tuple[Count, Count, Count]


class Pretrain(Section):
    """Where the dense network's weights come from."""

    seed: Seed
    weights: str | None
    sha256: str | None
    snapshots: tuple[CountOrNone, ...]
    recipe: Recipe


class Extract(Section):
    """How the network is read."""

    protect: tuple[str, ...]


class Budget(Section):
    """What the subnet may cost, as a fraction of the dense network, in one of three ways.

    sparsity: or the fraction of filters that go (space filters).
    """

    flops: Share | None
    parameters: Share | None
    latency: Share | None
    sparsity: Sparsity | None = None

    @model_validator(mode="after")
    def _one(self) -> Budget:
        given = [name for name, value in self if value is not None]
        if len(given) != 1:
            raise ValueError(
                "needs exactly one of flops, parameters, latency and sparsity, got "
                f"{', '.join(given) or 'none'}: set the others to null"
            )
        return self


class Reward(Section):
    """How a plan is scored on the reward images."""

    kind: RewardKind
    statistics: Literal["matched", "batch", "images", "kept"]
    statistics_images: CountOrNone = 0  # absent: all of them
    recalibration_images: Count
    compensation: Literal["none", "gram"]
    precision: Literal["float32", "bfloat16"]
    batch_size: Count
    race: CountOrNone
    training: ShortTraining | None = None

    @model_validator(mode="after")
    def _statistics_can_be_measured(self) -> Reward:
        refuse_statistics(self.statistics, self.statistics_images, self.batch_size)
        return self


class Bottleneck(Section):
    """How long the gates of the importance and prior `bottleneck` are trained."""

    batches: Count
    batch_size: Count
    learning_rate: Positive


class Search(Section):
    """What is searched for, by whom, at what cost.

    The settings of an agent stand under its name; those of agents that are not used may be absent.
    """

    seed: Seed
    space: Space
    agent: str
    agent_from: str | None
    encoder: Encoder
    budget: Budget
    evaluations: Count
    batch: Count
    max_steps: Count
    importance: str
    prior: Literal["none", "reconstruction", "bottleneck"]
    calibration_images: Count
    latency_table: str | None
    weights: Weights
    min_channels: Count
    multiple: Count
    min_fraction: Probability | None = None  # of its filters that every layer keeps (filters)
    reward: Reward
    gnn: Gnn
    a3c: A3C | None = None
    ppo: PPO | None = None
    ddpg: DDPG | None = None
    reinforce: Reinforce | None = None
    annealing: Annealing | None = None
    plackett_luce: PlackettLuce | None = None  # reinforce in the space filters
    swaps: Swaps | None = None  # annealing in the space filters
    evolution: Evolution | None = None
    sensitivity: Sensitivity | None = None
    bottleneck: Bottleneck | None = None
    rescore: Rescore | None = None  # absent: the plan with the best reward is taken
    students: Students | None = None  # absent: plans are scored without training
    ray: Ray | None = None  # absent: this process evaluates
    own: dict[str, Any] | None = None  # of an agent named package.module:function

    @model_validator(mode="after")
    def _agent_suits_the_space(self) -> Search:
        refuse_misfits(self.space, self.agent, self.budget.sparsity)
        refuse_steps(self.space, self.max_steps, self.prior)
        short = self.reward.training is not None
        refuse_trainings(short, self.students is not None, self.reward.race)
        refuse_constraint(self.reward.kind, self.students is not None)
        return self

    @model_validator(mode="after")
    def _has_its_agent(self) -> Search:
        optional = {name for name, field in Search.model_fields.items() if not field.is_required()}
        name = self.agent_section
        if name in optional and getattr(self, name) is None:
            raise ValueError(f"has no settings of its agent {self.agent}: add 'search.{name}'")
        if "bottleneck" in (self.importance, self.prior) and self.bottleneck is None:
            raise ValueError("has no settings of its gates: add 'search.bottleneck'")
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
            "gates": None if self.bottleneck is None else dict(self.bottleneck),
            **({} if self.min_fraction is None else {"min_fraction": self.min_fraction}),
            "training": None if self.reward.training is None else dict(self.reward.training),
            "students": None if self.students is None else self.students.model_dump(),
            "view": "plain" if self.encoder == "plain" else "hierarchical",
        }

    def agent_parameters(self) -> dict[str, Any]:
        """Return the flat settings of the chosen agent, its encoder's included if it has one."""
        name = "own" if ":" in self.agent else self.agent_section
        settings = dict(getattr(self, name, None) or {})
        if self.agent in ("a3c", "ppo", "ddpg", "reinforce"):
            settings |= {"encoder": self.encoder, **dict(self.gnn)}
        return settings


class Prune(Section):
    """What the plan is applied to."""

    weights: Weights
    recalibration_images: CountOrNone
    compensation: Literal["none", "sequential"]
    calibration_images: Count


class Train(Section):
    """How the subnet is trained."""

    seed: Seed
    recipe: Recipe
    distillation: Distillation


class Evaluate(Section):
    """How dense network and subnet are compared."""

    batch_size: Count
    latency_batches: tuple[Count, ...]
    latency_rounds: Count


class Report(Section):
    """What the page is called and how fine its pictures are."""

    title: str
    dpi: Count
