"""Episodes whose plans are evaluated after they were played."""

from __future__ import annotations

from dataclasses import replace

from gnnrl.evaluation.base import Evaluation
from gnnrl.rl.rollout import Decision, Episode


def is_pending(episode: Episode) -> bool:
    """Whether the plan of this episode is still to be evaluated."""
    return bool(episode.info.get("pending"))


def evaluated(episode: Episode, evaluation: Evaluation) -> Episode:
    """Return a pending episode with the evaluation of its plan, whose reward is the last one."""
    info = {**episode.info, "evaluation": evaluation, "pending": False}
    return with_reward(replace(episode, info=info), evaluation.reward)


def with_reward(episode: Episode, reward: float) -> Episode:
    """Return the episode with another last reward."""
    *before, last = episode.transitions
    return replace(episode, transitions=(*before, replace(last, reward=reward)))


def bare(episode: Episode) -> Episode:
    """Return the episode as `replay` gives it: actions alone, without what its agent noted."""
    steps = tuple(replace(s, decision=Decision(s.decision.action)) for s in episode.transitions)
    info = dict(episode.info)
    if "evaluation" in info:
        info["evaluation"] = info["evaluation"].as_cached()
    return replace(episode, transitions=steps, info=info)
