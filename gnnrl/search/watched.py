"""What a search shows, writes and keeps while it goes on."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gnnrl.rl.agent import Agent
from gnnrl.sealed import write_state
from gnnrl.watch import Watch

LINE = "search: episodes {}, reward min {:.6g} mean {:.6g} max {:.6g}, best {:.6g}"
"""Printed after every batch where there is no terminal; docs/experiments.md has its patterns."""


@dataclass(frozen=True)
class Watched:
    """Who is told how a search goes.

    watch: gets the figures of every episode and of every update, by the number of episodes.
    agents: folder in which the agent is kept after every `keep_every` updates.
    """

    watch: Watch | None = None
    agents: Path | None = None
    keep_every: int | None = None

    def begin(self, episodes: int) -> None:
        """Take note that the search has this many episodes behind it."""
        if self.watch is not None:
            self.watch.begin(episodes)

    def played(self, row: Mapping[str, Any]) -> None:
        """Take note of an episode, by its row of evaluations.csv."""
        if self.watch is not None:
            own = {name: value for name, value in row.items() if name not in ("episode", "steps")}
            figures = {f"episode/{name}": value for name, value in own.items() if value != ""}
            self.watch.add(row["episode"] + 1, figures)

    def learned(self, row: Mapping[str, float], rewards: Sequence[float]) -> None:
        """Take note of an update of the agent, by its row of history.csv, and of its rewards."""
        episodes = int(row["episodes"])
        least, mean, most = min(rewards), float(np.mean(rewards)), max(rewards)
        if self.watch is not None:
            spread = {"update/reward_min": least, "update/reward_max": most}
            figures = {f"update/{name}": value for name, value in row.items() if name != "episodes"}
            self.watch.add(episodes, spread | figures)
        if not sys.stderr.isatty() and os.environ.get("GNNRL_PROGRESS") != "0":
            print(LINE.format(episodes, least, mean, most, row["best"]), flush=True)

    def keep(self, updates: int, agent: Agent) -> None:
        """Keep the agent as it is after so many updates, if it is one of those to keep."""
        if self.agents is not None and self.keep_every and updates % self.keep_every == 0:
            self.agents.mkdir(parents=True, exist_ok=True)
            write_state(self.agents / f"{updates:06d}.pt", agent.state_dict())

    def close(self) -> None:
        """Take note that the search has ended."""
        if self.watch is not None:
            self.watch.close()
