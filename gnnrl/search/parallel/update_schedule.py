"""When asynchronous workers start and when their gradients are applied; knows nothing of either."""

from __future__ import annotations

from collections.abc import Hashable

from gnnrl.errors import UserError


class Schedule:
    """Bounds how stale a gradient is when it is applied, and lets no worker wait for it.

    The staleness of a gradient is the number of updates between the version of the policy that it
    was computed with and the one that it is applied to. An update waits as long as it would make
    a call that is still running too stale; workers go on meanwhile, with the version there is, and
    all gradients that have come by then are applied together. No gradient is thrown away.

    With a bound of 0 every update needs all workers, so that they do wait for each other. With one
    worker an update follows every call, whatever the bound.
    """

    def __init__(self, max_staleness: int) -> None:
        if max_staleness < 0:
            raise UserError(f"max_staleness {max_staleness}: expected at least 0")
        self.max_staleness = max_staleness
        self.version = 0
        self.running: dict[Hashable, int] = {}  # what runs, and the version it runs with
        self.waiting: dict[Hashable, int] = {}  # what has come and is not applied

    def may_start(self) -> bool:
        """Whether another call would not hold up the gradients that wait, for ever."""
        return self.max_staleness > 0 or not self.waiting

    def start(self, key: Hashable) -> None:
        """Note that a call runs with the current version."""
        self.running[key] = self.version

    def finish(self, key: Hashable) -> None:
        """Note that a call is done and its gradient here."""
        self.waiting[key] = self.running.pop(key)

    def update(self) -> list[tuple[Hashable, int]]:
        """Return what is to be applied now, with the staleness of each; nothing if it must wait."""
        oldest = min(self.running.values(), default=self.version + 1)
        if not self.waiting or self.version + 1 - oldest > self.max_staleness:
            return []
        due = [(key, self.version - version) for key, version in self.waiting.items()]
        self.waiting.clear()
        self.version += 1
        return due
