"""How students are trained before they are scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gnnrl.training.recipe import TrainingRecipe


@dataclass(frozen=True)
class Schooling:
    """How students are trained and what comes of the best.

    alpha, temperature, kind, weight: as `Distillation` has them.
    ease_in: updates of the agent over which being over the budget comes to be punished in full.
    keep: how many of the best students are kept as checkpoints.
    """

    recipe: TrainingRecipe
    alpha: float = 0.9
    temperature: float = 4.0
    kind: str = "kl"
    weight: float | None = None
    ease_in: int = 15
    keep: int = 5


def schooling(
    recipe: Mapping[str, Any], distillation: Mapping[str, Any], ease_in: int, keep: int
) -> Schooling:
    """Return it as it stands in params.yaml."""
    return Schooling(TrainingRecipe(**recipe), **distillation, ease_in=ease_in, keep=keep)
