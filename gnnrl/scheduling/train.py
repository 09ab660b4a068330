"""A scheduler to be trained, its environment, and how good it is on held-out job graphs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gnnrl.agents.ppo import PPO
from gnnrl.agents.settings import PPOSettings
from gnnrl.rl.agent import Agent
from gnnrl.rl.observation import ObservationSpec
from gnnrl.rl.settings import EncoderSettings
from gnnrl.scheduling import generators
from gnnrl.scheduling.compare import Row, agent_schedules, best_of, compare, mean_makespans
from gnnrl.scheduling.env import SchedulingEnv
from gnnrl.scheduling.exact import optimum
from gnnrl.scheduling.generators import held_out, random_problem
from gnnrl.scheduling.machines import Problem
from gnnrl.scheduling.schedule import Schedule as Solution
from gnnrl.scheduling.settings import Schedule

MATRIX = 10  # rows of the matrix that is eliminated: 54 tasks
POINTS = 8  # of the Fourier transform: 39 tasks


def build_env(settings: Schedule) -> SchedulingEnv:
    """An environment that draws graphs of the training sizes."""
    kinds = _kinds(settings)

    def draw(generator: np.random.Generator) -> Problem:
        tasks = int(generator.integers(settings.smallest, settings.largest + 1))
        return random_problem(tasks, settings.machines, generator, kinds)

    return SchedulingEnv(draw, most_tasks=settings.most_tasks, lookahead=settings.lookahead)


def build_agent(settings: Schedule, env: SchedulingEnv) -> PPO:
    """The same PPO as for pruning; imitation is off: another episode is another problem."""
    observation, _ = env.clone().reset(seed=settings.seed)
    learning = PPOSettings(
        learning_rate=settings.learning_rate,
        n_epochs=settings.n_epochs,
        batch_size=settings.batch_size,
        gamma=settings.gamma,
        gae_lambda=settings.gae_lambda,
        ent_coef=settings.ent_coef,
        target_kl=settings.target_kl,
        imitation_coef=0.0,
    )
    encoder = EncoderSettings(
        encoder="plain",
        hidden=settings.hidden,
        layers=settings.layers,
        message_passing=settings.message_passing,
    )
    return PPO(ObservationSpec.of(observation, env.action_kind), learning, encoder, settings.seed)


def held_out_rows(settings: Schedule, agent: Agent, tasks: int) -> list[Row]:
    """The agent's greedy schedules and all baselines on held-out graphs of one size."""
    return _rows(settings, agent, tasks, _kinds(settings))


def structure_rows(settings: Schedule, agent: Agent) -> dict[str, list[Row]]:
    """The same on graphs of well-known programs, which no training draws, by their name."""
    return {
        "gaussian_elimination": _rows(settings, agent, MATRIX, [generators.gaussian_elimination]),
        "fft": _rows(settings, agent, POINTS, [generators.fft]),
    }


def _rows(
    settings: Schedule, agent: Agent, size: int, kinds: Sequence[generators.Kind]
) -> list[Row]:
    problems = held_out(settings.test_problems, size, settings.machines, settings.seed, kinds)
    mine = agent_schedules(agent, build_env(settings), problems)
    return compare(problems, {"agent": mine}, settings.seed)


def tiny_rows(settings: Schedule, agent: Agent) -> list[Row]:
    """The same on graphs so small that the optimum is known; best-of-N stands by itself."""
    problems = held_out(
        settings.test_problems, settings.tiny_tasks, settings.machines, settings.seed
    )
    env = build_env(settings)
    named: dict[str, list[Solution]] = {
        "agent": agent_schedules(agent, env, problems),
        f"agent_best_of_{settings.samples}": best_of(
            agent, env, problems, settings.samples, settings.seed
        ),
        "optimum": [optimum(problem) for problem in problems],
    }
    return compare(problems, named, settings.seed)


def relative(rows: list[Row], reference: str) -> dict[str, float]:
    """The mean makespan of every scheduler over that of one of them."""
    means = mean_makespans(rows)
    return {name: mean / means[reference] for name, mean in means.items()}


def over_optimum(rows: list[Row]) -> dict[str, float]:
    """The mean over problems of makespan over optimum, for every scheduler."""
    best = {row.problem: row.makespan for row in rows if row.scheduler == "optimum"}
    names = dict.fromkeys(row.scheduler for row in rows)
    return {
        name: float(np.mean([r.makespan / best[r.problem] for r in rows if r.scheduler == name]))
        for name in names
    }


def _kinds(settings: Schedule) -> list[generators.Kind]:
    return [generators.KINDS[kind] for kind in settings.kinds]
