"""Environments are held to their contract, with messages that name them."""

from __future__ import annotations

import copy
import math

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from gnnrl.agents.random import Random
from gnnrl.errors import UserError
from gnnrl.evaluation.base import Evaluation
from gnnrl.rl.checks import Checked
from gnnrl.rl.env import GraphEnv
from gnnrl.rl.observation import REQUIRED
from gnnrl.rl.rollout import Decision
from gnnrl.search.env import PruningEnv
from gnnrl.search.loop import search
from tests.rl.toys import Plan, Target, Widths


class Broken(Target):
    """A target whose parts can be replaced by wrong ones."""

    name = "broken"

    def __init__(self, kind="continuous", change=None, reward=None, endless=False):
        super().__init__(kind, size=4)
        self.change, self.reward, self.endless = change, reward, endless
        self.max_episode_steps = 5

    def _graph(self):
        seen = super()._graph()
        if self.change:
            self.change(seen)
        return seen

    def step(self, action):
        seen, reward, ended, truncated, info = super().step(action)
        return seen, self.reward or reward, ended and not self.endless, truncated, info


def pruning(max_steps=1, **options):
    space = Widths(**options)
    return PruningEnv(space, lambda plans: [Evaluation(space.reward(p)) for p in plans], max_steps)


@pytest.mark.parametrize(
    "kind, action, message",
    [
        ("continuous", np.zeros(3), "shape"),
        ("continuous", np.array([0.1, 0.2, np.nan, 0.4]), "NaN"),
        ("continuous", np.array([0.1, 0.2, 1.5, 0.4]), r"expected \[0, 1\]"),
        ("binary", np.array([0, 1, 2, 0]), "other than 0 and 1"),
        ("binary", np.array([True, False]), "shape"),
        ("categorical", 4, "expected 0 to 3"),
        ("categorical", -1, "expected 0 to 3"),
        ("categorical", 1.5, "one integer"),
        ("categorical", np.zeros(4), "one integer"),
    ],
)
def test_an_illegal_action_is_an_error_that_names_the_environment(kind, action, message):
    env = Checked(Broken(kind))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=f"broken: illegal action: .*{message}"):
        env.step(action)


@pytest.mark.parametrize("kind, action", [("binary", np.ones(4, bool)), ("categorical", 2)])
def test_a_masked_choice_is_illegal(kind, action):
    def mask(seen):
        seen.action_mask = torch.tensor([True, True, False, True])

    env = Checked(Broken(kind, change=mask))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"broken: illegal action: .*action_mask forbids"):
        env.step(action)


def without_decisions(seen):
    seen.decision_index = seen.decision_index[:0]


def with_nan(seen):
    seen.x[0, 0] = math.nan


def with_stray_edge(seen):
    seen.edge_index[0, 0] = 17


def without_edge_attr(seen):
    del seen.edge_attr


def with_a_short_prior(seen):
    seen.prior = torch.zeros(3)


def all_masked(seen):
    seen.action_mask = torch.zeros(4, dtype=torch.bool)


@pytest.mark.parametrize(
    "change, message",
    [
        (without_decisions, "has no decision nodes"),
        (with_nan, "NaN or infinite values in x"),
        (with_stray_edge, "edge_index outside its 4 nodes"),
        (without_edge_attr, "has no tensor edge_attr"),
        (with_a_short_prior, r"has prior of shape \(3,\), expected \[4\]"),
        (all_masked, "allows no decision"),
    ],
)
def test_a_malformed_observation_is_an_error_that_names_the_environment(change, message):
    with pytest.raises(ValueError, match=f"broken: the observation .*{message}"):
        Checked(Broken(change=change)).reset(seed=0)


def test_a_nan_reward_is_an_error_that_names_the_environment():
    env = Checked(Broken(reward=math.nan))
    env.reset(seed=0)
    with pytest.raises(ValueError, match="broken: the reward of step 1 is nan"):
        env.step(np.zeros(4))


def test_an_episode_that_never_ends_is_an_error_that_names_the_environment():
    env = Checked(Broken(endless=True))
    env.reset(seed=0)
    with pytest.raises(ValueError, match="broken: the episode has not ended after 5 steps"):
        for _ in range(6):
            env.step(np.zeros(4))


@pytest.mark.parametrize(
    "env, message",
    [
        (Broken(change=without_decisions), "broken: the observation has no decision nodes"),
        (Broken(reward=math.nan), "broken: the reward of step 1 is nan"),
        (Broken(endless=True), "broken: the episode has not ended after 5 steps"),
        (Broken("binary"), "broken: illegal action: shape"),
    ],
)
def test_a_search_in_a_broken_environment_ends_in_an_error_that_names_it(env, message):
    agent = Random("continuous")
    if env.action_kind == "binary":
        agent.act = lambda seen, generator, greedy: [Decision(np.zeros(1))] * len(seen)
    with pytest.raises(ValueError, match=message):
        search(env, agent, evaluations=4, batch=2)


def test_stepping_past_the_end_is_an_error():
    env = Checked(Broken())
    env.reset(seed=0)
    env.step(np.zeros(4))
    with pytest.raises(ValueError, match="broken: step before reset"):
        env.step(np.zeros(4))


def test_a_single_step_prunes_to_a_plan_and_rewards_its_evaluation():
    env = pruning()
    env.reset(seed=0)
    _, reward, terminated, _, info = env.step(np.full(6, 0.9))
    assert terminated and info["plan"] == env.space.plan(np.full(6, 0.9))
    assert reward == info["evaluation"].reward == env.space.reward(info["plan"])


def test_several_steps_cut_further_until_the_budget_is_met():
    env = pruning(max_steps=5)
    env.reset(seed=0)
    keeps, terminated, steps = [], False, 0
    while not terminated:
        seen, _, terminated, _, info = env.step(np.full(6, 0.8))
        steps += 1
        keeps.append(float(seen.x[0, 2]))
    assert steps == 4  # 0.8^4 < 0.5 < 0.8^3
    assert keeps[:3] == pytest.approx([0.8, 0.64, 0.512])
    assert np.mean(info["plan"].keep) <= 0.5


def test_the_last_step_projects_onto_the_budget_whatever_was_reached():
    env = pruning(max_steps=3)
    env.reset(seed=0)
    for step in range(3):
        _, _, terminated, _, info = env.step(np.ones(6))
        assert terminated == (step == 2)
    assert np.mean(info["plan"].keep) == pytest.approx(0.5, abs=0.01)


def in_turn(**options):
    space = Widths(**options)
    rate = lambda plans: [Evaluation(space.reward(p)) for p in plans]  # noqa: E731
    return PruningEnv(space, rate, in_turn=True)


def test_in_turn_every_step_decides_one_group_and_shows_what_was_decided():
    env, actions = in_turn(), np.linspace(0.3, 0.8, 6, dtype=np.float32)
    checked = Checked(env)
    seen = checked.reset(seed=0)
    for place, action in enumerate(actions):
        assert seen.decision_index.tolist() == [place]
        assert seen.decided_index.tolist() == list(range(place))
        np.testing.assert_array_equal(seen.decided.numpy(), actions[:place])
        shown = [*actions[:place], *[1.0] * (6 - place)]
        np.testing.assert_allclose(seen.x[:, 2], shown, rtol=1e-6)
        seen, reward, terminated, _, info = checked.step(np.array([action]))
        assert terminated == (place == 5) and (terminated or reward == 0.0)
    assert info["plan"] == env.space.plan(actions)
    assert reward == env.space.reward(info["plan"])


def test_in_turn_needs_one_pass_over_numbers():
    with pytest.raises(UserError, match="in_turn: got Widths with max_steps 3"):
        PruningEnv(Widths(), lambda plans: [], max_steps=3, in_turn=True)
    space = Widths()
    space.action_kind = "binary"
    with pytest.raises(UserError, match="a space of numbers"):
        PruningEnv(space, lambda plans: [], in_turn=True)


def test_a_search_s_copy_leaves_the_reward_pending_and_the_plan_in_info():
    checked = Checked(pruning().player())
    checked.reset(seed=0)
    _, reward, terminated, _, info = checked.step(np.full(6, 0.9))
    assert terminated and reward == 0.0 and info["pending"]
    assert isinstance(info["plan"], Plan) and "evaluation" not in info
    assert info["decided"].plan is info["plan"]


def test_a_clone_plays_its_own_episode_on_the_same_space():
    env = pruning(max_steps=5)
    env.reset(seed=0)
    env.step(np.full(6, 0.8))
    twin = env.clone()
    twin.reset(seed=0)
    twin.step(np.full(6, 0.6))
    assert twin.space is env.space
    assert float(env.step(np.full(6, 0.8))[0].x[0, 2]) == pytest.approx(0.64)


class AsArrays(gymnasium.Wrapper):
    """The same observations as arrays, which Gymnasium's checker can compare."""

    def __init__(self, env: GraphEnv) -> None:
        super().__init__(env)
        seen, _ = env.reset(seed=0)
        spaces = {key: self._box(seen[key]) for key in REQUIRED}
        self.observation_space = gymnasium.spaces.Dict(spaces)

    @staticmethod
    def _box(value):
        array = value.numpy()
        return gymnasium.spaces.Box(-1e6, 1e6, array.shape, np.float64)

    def _arrays(self, seen):
        return {key: seen[key].numpy().astype(np.float64) for key in REQUIRED}

    def reset(self, *, seed=None, options=None):
        seen, info = self.env.reset(seed=seed, options=options)
        return self._arrays(seen), info

    def step(self, action):
        seen, *rest = self.env.step(action)
        return self._arrays(seen), *rest


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "make",
    [
        pruning,
        lambda: pruning(max_steps=4),
        in_turn,
        lambda: Target("binary"),
        lambda: Target("categorical"),
    ],
)
def test_gymnasium_s_own_checker_accepts_the_environments(make):
    check_env(AsArrays(make()), skip_render_check=True)


def test_the_observation_space_holds_graphs_and_nothing_else():
    env = pruning()
    seen, _ = env.reset(seed=0)
    assert seen in env.observation_space
    broken = copy.copy(seen)
    broken.decision_index = torch.tensor([99])
    assert broken not in env.observation_space
    assert {"x": 1} not in env.observation_space


def test_an_evaluation_refuses_a_reward_that_is_not_a_number():
    with pytest.raises(ValueError, match="reward nan"):
        Evaluation(math.nan)
    evaluation = Evaluation(0.5, 0.8, 100, 10, cost=2.0)
    assert Evaluation.from_row(evaluation.row()) == evaluation
    assert evaluation.as_cached().cost == 0.0


def test_details_of_an_evaluation_are_columns_of_their_own():
    evaluation = Evaluation(0.5, 0.8, details={"x_factor": 2.0, "dir": ""})
    assert list(evaluation.row())[-2:] == ["x_factor", "dir"]
    assert Evaluation.from_row(evaluation.row()) == evaluation
    assert "details" not in Evaluation(0.5).row()
