"""Dense network and subnet side by side: metric, costs, size, time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gnnrl.data.images import Labelled
from gnnrl.data.splits import Splits
from gnnrl.graph.cost import Cost, cost
from gnnrl.graph.extract import extract
from gnnrl.measurement.latency import Timing, pinned, time_networks
from gnnrl.measurement.running import machine_of
from gnnrl.measurement.runtimes import runtime_of
from gnnrl.measurement.settings import EvaluateSettings
from gnnrl.runtime import device_of
from gnnrl.sealed import sealed
from gnnrl.shapes import Shape
from gnnrl.tasks.base import Task, spoken
from gnnrl.tasks.classification import CLASSIFICATION
from gnnrl.training.evaluate import evaluate


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
    networks: Mapping[str, nn.Module], input_shape: Shape, settings: EvaluateSettings
) -> dict[str, Any]:
    """Return the latency of "dense" and "subnet" in every runtime and batch size that is asked for.

    By runtime and batch size: median milliseconds and spread of both networks, and the speed-up,
    the median of the ratios round by round, with its spread.  warnings: one sentence for each
    figure that was taken on a noisy machine.  With a digest (`sealed`).  Raises `UserError` where
    a runtime is not installed.
    """
    place = device_of(networks["dense"])
    rounds, threads = settings.latency_rounds, settings.latency_threads
    found: dict[str, Any] = {}
    for runtime in settings.latency_runtimes:
        runtime_of(runtime)  # refused before anything is measured
    for runtime in settings.latency_runtimes:
        sizes = found[runtime] = {}
        for size in settings.latency_batches:
            bar = f"latency of {size} images in {runtime}"
            taken = time_networks(networks, input_shape, size, rounds, runtime, threads, bar)
            gain = taken["dense"].over(taken["subnet"])
            sizes[str(size)] = {
                **{name: _figures(timing) for name, timing in taken.items()},
                "speedup": {
                    "median": round(gain.milliseconds, 4),
                    "spread": round(gain.spread, 4),
                },
            }
    with pinned(threads) as count:
        return sealed(
            {
                "runtimes": found,
                "rounds": rounds,
                "device": f"{place.type} {machine_of(place)}".strip(),
                "threads": count,
                "torch": str(torch.__version__),
                "noisy_above": settings.noisy_above,
                "warnings": noise(found, settings.noisy_above),
            }
        )


def _figures(timing: Timing) -> dict[str, float]:
    return {
        "milliseconds": round(timing.milliseconds, 4),
        "spread": round(timing.spread, 4),
    }


def noise(runtimes: Mapping[str, Any], bound: float) -> list[str]:
    """Return one sentence for each time whose spread is above a bound."""
    return [
        f"noisy machine: {name} at batch {size} in {runtime} has a spread of "
        f"{100 * both[name]['spread']:.0f} %, above {100 * bound:.0f} %: measure again when "
        "nothing else runs"
        for runtime, sizes in runtimes.items()
        for size, both in sizes.items()
        for name in ("dense", "subnet")
        if both[name]["spread"] > bound
    ]


def sentence(figures: Mapping[str, Any], latency: Mapping[str, Any]) -> str:
    """Return speed, metric and cost of the subnet in one line."""
    metric = figures.get("metric", "accuracy")
    speed = [
        f"{both['speedup']['median']:.2f}x as fast at batch {size} in {runtime}"
        for runtime, sizes in latency["runtimes"].items()
        for size, both in sizes.items()
    ]
    return (
        f"{', '.join(speed)}, {spoken(metric)} {100 * figures[metric]:.2f} % (dense "
        f"{100 * figures[f'dense_{metric}']:.2f} %) on {figures['test_images']} test images, "
        f"{figures['flops_kept']:.3f} of the flops"
    )
