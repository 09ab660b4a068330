"""Agents find the known best decision of toy tasks on graphs."""

from __future__ import annotations

import pytest
import torch

from gnnrl.agents.registry import build_agent
from gnnrl.evaluation.base import Evaluation
from gnnrl.rl.episodes import roll_out
from gnnrl.search.env import PruningEnv
from gnnrl.search.loop import search
from tests.rl.toys import Echo, Target, Widths

SMALL = {"hidden": 32, "layers": 2}
FAST = {"a3c": SMALL, "ppo": SMALL, "reinforce": SMALL, "ddpg": {**SMALL, "max_updates": 16}}


def solved(name, kind, evaluations, batch=16, parameters=None, **task):
    """Search the task; return the mean reward of greedy decisions on episodes not seen."""
    env = Target(kind, **task)
    agent = build_agent(name, env, seed=0, **(parameters or FAST.get(name, {})))
    search(env, agent, evaluations=evaluations, batch=batch, seed=0)
    unseen = roll_out(env, agent, range(10**6, 10**6 + 20), torch.Generator(), greedy=True)
    return sum(episode.reward for episode in unseen) / len(unseen)


KINDS = [("continuous", 0.9), ("binary", 1.0), ("categorical", 1.0)]
CASES = [(n, *k) for n in ("annealing", "evolution", "ppo", "reinforce") for k in KINDS]
CASES += [pytest.param("ddpg", *kind, marks=pytest.mark.slow) for kind in KINDS[:2]]


@pytest.mark.parametrize("name, kind, best", CASES)
def test_one_graph_is_solved(name, kind, best):
    if name == "reinforce":
        best *= 0.85
    assert solved(name, kind, 300) >= best


@pytest.mark.parametrize(
    "kind, best",
    [
        pytest.param("continuous", 0.85, marks=pytest.mark.slow),
        pytest.param("binary", 0.9, marks=pytest.mark.slow),
        pytest.param("categorical", 0.97, marks=pytest.mark.slow),
    ],
)
def test_ppo_learns_what_holds_on_all_graphs(kind, best):
    assert solved("ppo", kind, 800, static=False, size=(5, 12)) >= best


@pytest.mark.slow
def test_ppo_learns_what_only_the_neighbours_tell():
    task = {"static": False, "neighbours": True}
    blind = {**SMALL, "message_passing": False}
    assert solved("ppo", "continuous", 1000, 32, **task) >= 0.85
    assert solved("ppo", "continuous", 1000, 32, blind, **task) < 0.8


@pytest.mark.slow
def test_ppo_learns_over_several_steps():
    assert solved("ppo", "continuous", 300, steps=3) >= 3 * 0.85


def test_the_decoder_reads_the_previous_action():
    """Decisions that should repeat it, on episodes not seen; the other encoders cannot know it."""

    def echoed(encoder):
        agent = build_agent("ppo", Echo(), seed=0, encoder=encoder, **SMALL)
        search(Echo(), agent, evaluations=320, batch=32, seed=0)
        unseen = roll_out(Echo(), agent, range(10**6, 10**6 + 50), torch.Generator(), greedy=True)
        return sum(episode.reward for episode in unseen) / len(unseen)

    assert echoed("encoder_decoder") > 0.85
    assert echoed("plain") < 0.6


@pytest.mark.slow
@pytest.mark.parametrize("in_turn", [False, True])
@pytest.mark.parametrize("name", ["ppo", "ddpg"])
def test_an_encoder_decoder_finds_the_best_plan_of_a_toy(name, in_turn):
    space = Widths()
    env = PruningEnv(
        space, lambda plans: [Evaluation(space.reward(plan)) for plan in plans], in_turn=in_turn
    )
    turn = {"whole_returns": True, "noise_decay": 0.997, "warmup": 192}  # of six decisions each
    settings = {**FAST[name], **(turn if name == "ddpg" and in_turn else {})}
    agent = build_agent(name, env, seed=0, encoder="encoder_decoder", **settings)
    found = search(env, agent, evaluations=300, batch=16, seed=0)
    first, last = found.evaluations[0]["reward"], found.evaluations[-1]["reward"]
    assert last > 0.9 > first, (first, last)
