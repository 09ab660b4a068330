"""What is known of a plan once it has been evaluated, and what every evaluator offers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from gnnrl.errors import UserError
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.removal import absent_layers
from gnnrl.graph.unit_mapping import kept_units
from gnnrl.pruning.plan import PruningPlan
from gnnrl.tasks.base import Targets

FAILED = -100.0
"""Reward of a plan that gives no finite numbers: below every reward of one that does."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How good one plan is. All fields are JSON values: evaluations are journalled.

    reward: what the agent maximises.  accuracy: in [0, 1], on reward images; in another task than
    classification its metric, such as mean IoU.
    flops, parameters: of the pruned network.  status: "ok", or in a few words why it failed.
    cached: this plan had been evaluated before, nothing was run.
    cost: in evaluation equivalents (1 = 500 forward images); what the search is charged.
    details: further columns, such as an evaluator that trains students has them.
    """

    reward: float
    accuracy: float = math.nan
    flops: int = 0
    parameters: int = 0
    status: str = "ok"
    cached: bool = False
    cost: float = 1.0
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not math.isfinite(self.reward):
            raise ValueError(
                f"reward {self.reward} of an evaluation is not a finite number "
                f"(status {self.status!r}; give a plan that cannot be run a bad reward instead)"
            )
        if self.cost < 0:
            raise ValueError(f"cost {self.cost} of an evaluation: expected at least 0")

    def row(self) -> dict[str, Any]:
        """Return fields and details as one flat dict, ready for JSON or a table."""
        row = dataclasses.asdict(self)
        details = row.pop("details")
        return {**row, **details}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Evaluation:
        """Return the evaluation written by `row()`."""
        names = {field.name for field in dataclasses.fields(cls)} - {"details"}
        fields = {name: value for name, value in row.items() if name in names}
        return cls(**fields, details={k: v for k, v in row.items() if k not in names})

    def as_cached(self) -> Evaluation:
        """Return the same evaluation, marked as not run again and free of cost."""
        return dataclasses.replace(self, cached=True, cost=0.0)


@dataclasses.dataclass(frozen=True)
class Decided:
    """A plan as a search space decided it: with the units `[num_units]`, bool, that it keeps.

    units: None where the space does not know them; they are then found from the plan.
    """

    plan: PruningPlan
    units: np.ndarray | None = dataclasses.field(default=None, compare=False)

    @classmethod
    def of(cls, plan: PruningPlan | Decided) -> Decided:
        """Return a bare plan as one whose units are not known."""
        return plan if isinstance(plan, Decided) else cls(plan)

    def units_of(self, graph: ComputationalGraph) -> np.ndarray:
        """Return the units of the graph that are kept, bool `[num_units]`."""
        if self.units is not None:
            return self.units
        absent = absent_layers(graph, self.plan.removed_layers)
        return kept_units(graph, self.plan.kept, absent)


Plan = PruningPlan | Decided
"""What an evaluator is given: a plan, with its units where a search decided it."""


@runtime_checkable
class Evaluator(Protocol):
    """Says how good plans are; the search, its workers and rescoring ask nothing else of it.

    cost: evaluation equivalents of one plan, at most.  batched: plans of a batch are given
    together, since their evaluations depend on each other.  together: how many are best given at
    once, where they do not.  images: how many a plan is scored on.
    """

    cost: float = 1.0
    batched: bool = False
    together: int = 1
    images: int = 0

    def __call__(self, plans: Sequence[Plan]) -> list[Evaluation]:
        """Evaluate plans; equal plans get equal evaluations."""
        ...

    def failed(self, plan: Plan, reason: str) -> Evaluation:
        """Return the evaluation of a plan that gave no result; reason: a few words."""
        return Evaluation(FAILED, 0.0, status=reason, cost=self.cost)

    def shaped_reward(self, evaluation: Evaluation, updates: int) -> float:
        """Return the reward that the agent learns from after so many of its updates."""
        return evaluation.reward

    def on(self, images: Tensor, labels: Targets) -> Evaluator | None:
        """Return the same evaluator on other images `[N, C, H, W]` with their labels.

        None where plans cannot be scored on other images.
        """
        return None


class Unevaluated(Evaluator):
    """Of a search that may spend nothing: it evaluates no plan."""

    def __call__(self, plans: Sequence[Plan]) -> list[Evaluation]:
        """Refuse plans."""
        raise UserError("a plan is evaluated, but search.evaluations is 0: allow at least one")


class FromFunction(Evaluator):
    """A function from plans to evaluations as an evaluator."""

    def __init__(self, function: Callable[[Sequence[Any]], Sequence[Evaluation]]) -> None:
        self.function = function

    def __call__(self, plans: Sequence[Plan]) -> list[Evaluation]:
        """Call the function with bare plans."""
        return list(self.function([Decided.of(plan).plan for plan in plans]))


def as_evaluator(evaluate: Any) -> Evaluator:
    """Return an evaluator as it is, and a plain function as one."""
    return evaluate if isinstance(evaluate, Evaluator) else FromFunction(evaluate)
