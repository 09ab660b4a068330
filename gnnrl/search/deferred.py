"""Episodes whose plans are evaluated after they were played."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from gnnrl.evaluation.base import Evaluation
from gnnrl.rl.env import GraphEnv
from gnnrl.rl.rollout import Decision, Episode


def is_deferred(episode: Episode) -> bool:
    """Whether the plan of this episode is still to be evaluated."""
    return math.isnan(episode.transitions[-1].reward)


def rated(episode: Episode, evaluation: Evaluation) -> Episode:
    """Return the episode with the evaluation of its plan as the last reward."""
    *before, last = episode.transitions
    steps = (*before, replace(last, reward=evaluation.reward))
    return replace(episode, transitions=steps, info={**episode.info, "evaluation": evaluation})


def bare(episode: Episode) -> Episode:
    """Return the episode as `replay` gives it: actions alone, without what its agent noted."""
    steps = tuple(replace(s, decision=Decision(s.decision.action)) for s in episode.transitions)
    info: dict[str, Any] = dict(episode.info)
    if "evaluation" in info:
        info["evaluation"] = info["evaluation"].as_cached()
    return replace(episode, transitions=steps, info=info)


def lesson(env: GraphEnv, episode: Episode, updates: int) -> Episode:
    """Return the episode as the agent is to learn from it; what is best is told by its reward."""
    constraint = getattr(getattr(env, "evaluate", None), "constraint", None)
    evaluation = episode.info.get("evaluation")
    if constraint is None or evaluation is None:
        return episode
    *before, last = episode.transitions
    reward = constraint.relaxed(evaluation, updates)
    return replace(episode, transitions=(*before, replace(last, reward=reward)))
