"""Dense network and subnet side by side: metric, costs, size, time."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gnnrl.data.images import Labelled
from gnnrl.data.splits import Splits
from gnnrl.graph.cost import Cost, cost
from gnnrl.graph.extract import extract
from gnnrl.measurement.latency import median_latency
from gnnrl.shapes import Shape
from gnnrl.tasks.base import Task
from gnnrl.tasks.classification import CLASSIFICATION
from gnnrl.training.evaluate import evaluate, spoken


def figures(
    networks: Mapping[str, nn.Module],
    files: Mapping[str, Path],
    input_shape: Shape,
    images: Labelled,
    batch_size: int,
    opaque: Iterable[str] = (),
    task: Task = CLASSIFICATION,
) -> dict[str, Any]:
    """Return what is known of "dense" and "subnet"; the same networks give the same figures.

    Costs are counted on each network's own graph, not on the plan. bytes: of the checkpoint.
    metric: the name of the task's, where it is not accuracy.
    opaque: parts of both that are protected as they are read.
    """
    costs = {name: own_cost(network, input_shape, opaque) for name, network in networks.items()}
    metric = task.metric
    found: dict[str, Any] = {} if metric == "accuracy" else {"metric": metric}
    for name, prefix in (("dense", "dense_"), ("subnet", "")):
        score = evaluate(networks[name], images, batch_size, task, networks["dense"])
        found[f"{prefix}{metric}"] = score.value
        found[f"{prefix}flops"] = costs[name].flops
        found[f"{prefix}parameters"] = costs[name].parameters
        found[f"{prefix}nonzero_parameters"] = nonzero(networks[name])
        found[f"{prefix}bytes"] = files[name].stat().st_size
    found[f"{metric}_change"] = found[metric] - found[f"dense_{metric}"]
    for figure in ("flops", "parameters", "bytes"):
        found[f"{figure}_kept"] = found[figure] / found[f"dense_{figure}"]
    return found


def on_all_test_images(
    network: nn.Module, splits: Splits, batch_size: int, task: Task = CLASSIFICATION
) -> dict[str, float]:
    """Return the metric on reward and test images together where both are test images.

    So a network that came trained is measured as its publication measured it.
    """
    if splits.reward_from != "test":
        return {}
    score = evaluate(network, (splits.reward, splits.test), batch_size, task)
    return {f"dense_{task.metric}_on_all_test_images": score.value}


def nonzero(network: nn.Module) -> int:
    """Return how many parameters are not zero: what fine-grained sparsity leaves."""
    return sum(int((parameter != 0).sum()) for parameter in network.parameters())


def own_cost(network: nn.Module, input_shape: Shape, opaque: Iterable[str] = ()) -> Cost:
    """Return the cost of a network as it is."""
    weight = next(network.parameters())
    return cost(extract(network, torch.zeros(1, *input_shape, device=weight.device), opaque))


def latency(
    networks: Mapping[str, nn.Module], input_shape: Shape, batches: Sequence[int], rounds: int
) -> dict[str, Any]:
    """Return median milliseconds by batch size and network, and what they were measured on."""
    weight = next(networks["dense"].parameters())
    place = weight.device
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else platform.processor()
    return {
        "milliseconds": {
            str(size): median_latency(networks, input_shape, size, rounds, place)
            for size in batches
        },
        "rounds": rounds,
        "device": f"{place.type} {name}".strip(),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }


def sentence(figures: Mapping[str, Any], latency: Mapping[str, Any]) -> str:
    """Return metric, cost and speed of the subnet in one line."""
    metric = figures.get("metric", "accuracy")
    speed = [
        f"{both['dense'] / both['subnet']:.2f}x as fast at batch {size}"
        for size, both in latency["milliseconds"].items()
    ]
    return (
        f"{spoken(metric)} {100 * figures[metric]:.2f} % (dense "
        f"{100 * figures[f'dense_{metric}']:.2f} %) on {figures['test_images']} test images, "
        f"{figures['flops_kept']:.3f} of the flops, {', '.join(speed)}"
    )
