"""A trained agent compared with the baselines, on problems that it was not trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gnnrl.rl.agent import Agent
from gnnrl.scheduling.baselines import (
    Scheduler,
    critical_path,
    fifo,
    heft,
    lookahead_schedule,
    peft,
    random_schedule,
)
from gnnrl.scheduling.env import SchedulingEnv
from gnnrl.scheduling.machines import Problem
from gnnrl.scheduling.schedule import Schedule

BASELINES: Mapping[str, Scheduler] = {
    "fifo": fifo,
    "critical_path": critical_path,
    "heft": heft,
    "peft": peft,
    "lookahead": lookahead_schedule,
}


@dataclass(frozen=True)
class Row:
    """One schedule of one problem. heft: the makespan of HEFT on the same problem."""

    problem: int
    scheduler: str
    makespan: float
    heft: float

    @property
    def ratio(self) -> float:
        """Makespan over HEFT's."""
        return self.makespan / self.heft


def agent_schedules(
    agent: Agent,
    env: SchedulingEnv,
    problems: Sequence[Problem],
    generator: torch.Generator | None = None,
) -> list[Schedule]:
    """One schedule per problem, all built side by side; drawn if a generator is given, else greedy.

    agent: is not changed and learns nothing.
    """
    draw = generator or torch.Generator()
    envs = [env.clone() for _ in problems]
    seen = [
        twin.reset(options={"problem": problem})[0]
        for twin, problem in zip(envs, problems, strict=True)
    ]
    done: dict[int, Schedule] = {}
    while len(done) < len(envs):
        going = [at for at in range(len(envs)) if at not in done]
        decisions = agent.act([seen[at] for at in going], draw, greedy=generator is None)
        for at, decision in zip(going, decisions, strict=True):
            seen[at], _, ended, _, info = envs[at].step(int(decision.action))
            if ended:
                done[at] = info["plan"]
    return [done[at] for at in range(len(envs))]


def best_of(
    agent: Agent, env: SchedulingEnv, problems: Sequence[Problem], samples: int, seed: int
) -> list[Schedule]:
    """The best of the greedy schedule and `samples` drawn ones, for each problem."""
    generator = torch.Generator().manual_seed(seed)
    best = agent_schedules(agent, env, problems)
    for _ in range(samples):
        drawn = agent_schedules(agent, env, problems, generator)
        best = [min(pair, key=lambda s: s.makespan) for pair in zip(best, drawn, strict=True)]
    return best


def compare(
    problems: Sequence[Problem], named: Mapping[str, Sequence[Schedule]], seed: int
) -> list[Row]:
    """Rows of all baselines and of the schedules given by name, on the same problems."""
    generator = np.random.default_rng(seed)
    rows = []
    for number, problem in enumerate(problems):
        schedules = {name: rule(problem) for name, rule in BASELINES.items()}
        schedules["random"] = random_schedule(problem, generator)
        schedules |= {name: given[number] for name, given in named.items()}
        reference = schedules["heft"].makespan
        rows += [Row(number, name, s.makespan, reference) for name, s in schedules.items()]
    return rows


def mean_makespans(rows: Sequence[Row]) -> dict[str, float]:
    """The mean makespan of every scheduler, the best one first."""
    names = dict.fromkeys(row.scheduler for row in rows)
    means = {n: float(np.mean([r.makespan for r in rows if r.scheduler == n])) for n in names}
    return dict(sorted(means.items(), key=lambda item: item[1]))
