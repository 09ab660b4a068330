"""Which settings go together: said before anything is computed."""

from __future__ import annotations

from typing import Any

CRITERIA = ("magnitude", "magnitude_sign", "snip", "grasp", "synflow")
RANKINGS = {name: c for c in CRITERIA for name in (c, f"{c}_shuffled")}
"""Agents that rank filters, and the criterion that each of them goes by."""

SUBSET_AGENTS = ("reinforce", "annealing", "random", *RANKINGS)
"""Agents of ours that can choose a number of filters."""

ON_FILTERS = {"reinforce": "plackett_luce", "annealing": "swaps"}
"""Where the settings of an agent stand that chooses a number of filters."""

COSTED = ("channels", "weights")
"""Spaces of ours that meet a budget of cost."""


def settings_of(agent: str, space: str) -> str:
    """The key below `search` that the settings of an agent stand under."""
    return ON_FILTERS.get(agent, agent) if space == "filters" else agent


def refuse_misfits(space: str, agent: str, sparsity: float | None) -> None:
    """Raise `ValueError` where the budget or the agent does not suit the space."""
    if space == "filters" and sparsity is None:
        raise ValueError(
            "has the space filters, which keeps a number of filters: set "
            "'search.budget.sparsity', and the other budgets to null"
        )
    if space in COSTED and sparsity is not None:
        raise ValueError(
            f"has a budget of sparsity, which counts filters, but the space {space}: set "
            "'search.space' to filters, or another budget"
        )
    if space == "filters" and ":" not in agent and agent not in SUBSET_AGENTS:
        raise ValueError(
            f"has the agent {agent}, which cannot choose a number of filters: for the space "
            f"filters take one of {', '.join(SUBSET_AGENTS)}"
        )
    if space in (*COSTED, "layers") and agent in RANKINGS:
        raise ValueError(
            f"has the agent {agent}, which ranks filters, but the space {space}: set "
            "'search.space' to filters"
        )


def refuse_steps(space: str, max_steps: int, prior: str) -> None:
    """Raise `ValueError` where a space that is decided in one go is to be decided otherwise."""
    if space == "filters" and (max_steps > 1 or prior != "none"):
        raise ValueError(
            "has the space filters, which is decided in one go and from nothing: set "
            "'search.max_steps' to 1 and 'search.prior' to none"
        )


def refuse_constraint(reward: str, students: bool) -> None:
    """Raise `ValueError` for a reward that only students can be given."""
    if reward == "n2n_constrained" and not students:
        raise ValueError(
            "has the reward n2n_constrained, which students are eased into: add "
            "'search.students', or set 'search.reward.kind' to n2n"
        )


def refuse_trainings(short: bool, students: bool, race: int) -> None:
    """Raise `ValueError` where subnets are to be trained before their reward in two ways."""
    if short and students:
        raise ValueError(
            "has 'reward.training' and 'students', which both train subnets: leave one out"
        )
    if short and race:
        raise ValueError(
            "has 'reward.training' and a race, which scores subnets without training: set "
            "'search.reward.race' to 0"
        )


def refuse_statistics(statistics: str, images: int, batch_size: int) -> None:
    """Raise `ValueError` where batch norm cannot take its statistics from so many images."""
    if images and statistics not in ("matched", "batch"):
        raise ValueError(
            f"has statistics_images {images}, but the statistics {statistics}, which are not of "
            "reward images: set 'statistics_images' to 0, or 'statistics' to matched or batch"
        )
    if images > batch_size:
        raise ValueError(
            f"has statistics_images {images}, which pass at once, expected at most the batch_size "
            f"{batch_size}: lower the first or raise the second"
        )


def refuse_weights(params: Any) -> None:
    """Raise `ValueError` where weights are asked for that pretraining does not keep."""
    kept = [str(epoch) for epoch in params.pretrain.snapshots]
    for name in ("search", "prune"):
        wanted = getattr(getattr(params, name), "weights", "final")
        if wanted not in ("initial", "final", *kept):
            raise ValueError(
                f"'{name}.weights' is {wanted}, but no snapshot of epoch {wanted} is kept "
                f"(kept are initial, {''.join(f'{epoch}, ' for epoch in kept)}final): add it "
                "to 'pretrain.snapshots'"
            )


def refuse_seen_images(params: Any) -> None:
    """Raise `ValueError` where a network that comes trained would be scored by its memory."""
    weights = params.pretrain.weights
    # a checkpoint of ours never saw the reward images of its own run
    foreign = weights is not None and not weights.endswith(".safetensors")
    if foreign and params.data.reward_from == "train":
        raise ValueError(
            "'data.reward_from' is train, but the network of 'pretrain.weights' has been "
            "trained on these images and would be scored by its memory: set it to test"
        )


def refuse_too_few_images(params: Any) -> None:
    """Raise `ValueError` where more reward images are asked for than there are."""
    if params.search is None:
        return
    wanted, there = params.search.reward.statistics_images, params.data.reward_images
    if wanted > there:
        raise ValueError(
            f"'search.reward.statistics_images' is {wanted}, expected at most the {there} of "
            "'data.reward_images': set it to 0 for all of them"
        )
