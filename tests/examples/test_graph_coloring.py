"""A user's own environment, in one file, without a change to the library."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from gnnrl.rl.checks import Checked

FILE = Path(__file__).parents[2] / "examples" / "graph_coloring.py"
UNSEEN = range(10**6, 10**6 + 30)


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("graph_coloring", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def colors(env, seed: int, choose) -> int:
    """How many colours an episode takes; checks that no two neighbours share one."""
    checked = Checked(env)
    observation, done = checked.reset(seed), False
    while not done:
        observation, _, done, _, info = checked.step(choose(observation))
    plan = np.array(info["plan"])
    ends = observation.edge_index.numpy()
    assert (plan[ends[0]] != plan[ends[1]]).all()
    return len(set(info["plan"]))


@pytest.fixture(scope="module")
def agent(example):
    return example.solve().agent


def test_the_file_is_at_most_sixty_lines():
    assert len(FILE.read_text().splitlines()) <= 60


@pytest.mark.slow
def test_a_trained_agent_colours_unseen_graphs_with_two_colours(example, agent):
    generator = torch.Generator().manual_seed(0)

    def greedy(observation):
        return agent.act([observation], generator, greedy=True)[0].action

    def at_random(observation):
        allowed = observation.action_mask.nonzero().flatten()
        return int(allowed[torch.randint(len(allowed), (), generator=generator)])

    learned = [colors(example.ColoringEnv(), seed, greedy) for seed in UNSEEN]
    careless = [colors(example.ColoringEnv(), seed, at_random) for seed in UNSEEN]
    assert np.mean(learned) <= 2.1 < 2.3 <= np.mean(careless)
    assert np.mean([count == 2 for count in learned]) >= 0.9


@pytest.mark.slow
def test_the_agent_scales_to_graphs_twice_as_large(example, agent):
    generator = torch.Generator()

    def greedy(observation):
        return agent.act([observation], generator, greedy=True)[0].action

    large = [colors(example.ColoringEnv(24), seed, greedy) for seed in UNSEEN]
    assert np.mean([count == 2 for count in large]) >= 0.8
