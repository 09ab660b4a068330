"""Which settings go together: said before anything is computed."""

from __future__ import annotations

from typing import Any


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


def reward_unlike_prune(params: Any) -> str:
    """Return one sentence where the search scores other subnets than `prune` makes, or empty."""
    search = params.search
    if search is None or search.space != "channels" or search.students or search.reward.training:
        return ""
    if params.prune.compensation == "none" or search.reward.compensation != "none":
        return ""
    return (
        "'prune.compensation' is sequential, but the reward scores subnets that are not repaired: "
        "set 'search.reward' to {kind: jensen_shannon, compensation: gram}"
    )
