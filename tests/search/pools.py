"""Workers in this process, for tests: calls are made when they are waited for, in a drawn order."""

from __future__ import annotations

import copy
import random
from collections.abc import Hashable
from typing import Any

from gnnrl.search.workers import Call, Lost, Shared


class Here:
    """`size` workers which take turns by chance; what they are given and give is a copy."""

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
