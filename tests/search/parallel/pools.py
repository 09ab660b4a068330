"""Workers for tests: in this process, in a drawn order; and what workers elsewhere evaluate."""

from __future__ import annotations

import copy
import math
import os
import random
import signal
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnnrl.evaluation.base import Evaluation
from gnnrl.search.env import PruningEnv
from gnnrl.search.parallel.workers import Call, Lost, Shared
from tests.rl.toys import Plan, Widths


class Here:
    """`size` workers which take turns by chance; what they are given and give is a copy.

    A call is made when it is waited for.
    """

    def __init__(self, shared: Shared, size: int = 1, seed: int = 0) -> None:
        self.size, self.shared, self.order = size, copy.deepcopy(shared), random.Random(seed)
        self.waiting: list[tuple[Hashable, Call, tuple[Any, ...]]] = []
        self.calls = 0

    def submit(self, key: Hashable, call: Call, *arguments: Any, limited: bool = False) -> None:
        self.waiting.append((key, call, copy.deepcopy(arguments)))

    def completed(self) -> tuple[Hashable, Any]:
        key, call, arguments = self.waiting.pop(self.order.randrange(len(self.waiting)))
        self.calls += 1
        try:
            return key, copy.deepcopy(call(self.shared, *arguments))
        except ValueError as error:
            return key, Lost(f"ValueError: {error}")


class Pruning(PruningEnv):
    """Pruning of toy widths on other processes, which write down what they evaluate.

    trouble: what becomes of the evaluation of the plan with this digest.
    """

    def __init__(self, log: Path, seconds: float = 0.0, trouble: Mapping[str, str] | None = None):
        super().__init__(Widths(), Rating(log, seconds, dict(trouble or {})))


@dataclass(frozen=True)
class Rating:
    """The evaluator of `Pruning`."""

    log: Path
    seconds: float
    trouble: Mapping[str, str]

    def __call__(self, plans: Sequence[Plan]) -> list[Evaluation]:
        return [self.rate(plan) for plan in plans]

    def rate(self, plan: Plan) -> Evaluation:
        trouble = self.trouble.get(plan.digest, "")
        with open(self.log, "a") as file:
            file.write(f"{os.getpid()} {plan.digest}\n")
        if trouble == "raises":
            raise ValueError("no such student")
        if trouble == "hangs":
            time.sleep(1000)
        if trouble == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        reward = math.nan if trouble == "nan" else Widths().reward(plan)
        return Evaluation(reward, accuracy=0.5)


def evaluated(log: Path) -> list[str]:
    """The digests of the plans that were begun, in order."""
    return [line.split()[1] for line in log.read_text().splitlines()] if log.exists() else []
