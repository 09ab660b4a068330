"""Which networks can be pruned: by `gnnrl`, and by Torch-Pruning, on the same list.

`python -m benchmarks.any_network` builds every classifier of torchvision and every
network of `gnnrl.networks` and writes `benchmarks/results/any_network.csv`, one row for each.

Half of the channels, drawn at random, are removed.  A network passes if the pruned network's output
equals that of the masked dense network (1e-4) and every remaining parameter receives a gradient.
Torch-Pruning passes if the result of its `MagnitudePruner` at one half runs forward and backward,
keeps its output shape and costs less.  It is optional:
`pip install --no-deps torch-pruning==1.6.1`.
"""

from __future__ import annotations

import argparse
import copy
import csv
import gc
import importlib.util
import time
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from gnnrl.graph.cost import cost
from gnnrl.graph.extract import extract
from gnnrl.networks.build import NETWORKS, build_network
from gnnrl.pruning.surgery import prune
from tests.cutting import (
    assert_costs_are_counted,
    assert_equals_masked,
    assert_trains,
    conditioned,
    flops_counted,
    random_plan,
    randomise,
)

RESULTS = Path(__file__).parent / "results" / "any_network.csv"
TRANSFORMERS = ("vit", "swin", "maxvit")
COLUMNS = (
    "network",
    "gnnrl",
    "extraction_seconds",
    "flops_kept",
    "torch_pruning",
    "torch_pruning_flops_kept",
)


def names() -> list[str]:
    """Classifiers of torchvision, then our own networks."""
    from torchvision import models

    return [f"torchvision/{n}" for n in models.list_models(module=models)] + list(NETWORKS)


def side(name: str) -> int:
    """Pixels: the least that a network of this kind takes without trouble."""
    if name.endswith("inception_v3"):
        return 96
    if name.removeprefix("torchvision/").startswith(TRANSFORMERS):
        return 224
    return 64 if name.startswith("torchvision/") else 32


def ours(network: nn.Module, image: Tensor) -> tuple[str, float, float]:
    """(verdict, seconds of extraction, fraction of flops kept)."""
    start, seconds, kept = time.perf_counter(), float("nan"), float("nan")
    try:
        graph = extract(network, image)
        seconds = time.perf_counter() - start
        plan = random_plan(graph, 0.5, seed=0)
        kept = cost(graph, plan).flops / cost(graph).flops
        subnet = prune(network, graph, plan)
        assert_equals_masked(network, subnet, plan, image, 1e-4, graph.whole)
        assert_costs_are_counted(graph, plan, subnet, image)
        assert_trains(subnet, image)
    except Exception as error:  # any failure is a result
        return f"{type(error).__name__}: {_first_line(error)}", seconds, kept
    return "pass", seconds, kept


def theirs(network: nn.Module, image: Tensor) -> tuple[str, float]:
    """(verdict, fraction of flops kept) of Torch-Pruning."""
    import torch_pruning

    dense, kept = flops_counted(network, image), float("nan")
    shape = network(image).shape
    last = [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    try:
        pruner = torch_pruning.pruner.MagnitudePruner(
            network,
            image,
            importance=torch_pruning.importance.MagnitudeImportance(p=2),
            pruning_ratio=0.5,
            ignored_layers=[last],
        )
        pruner.step()
        output = network(image)
        kept = flops_counted(network, image) / dense
        output.square().mean().backward()
        if output.shape != shape:
            return f"output {tuple(output.shape)} instead of {tuple(shape)}", kept
        if kept > 0.9:
            return "nothing is cut", kept
    except Exception as error:  # any failure is a result
        return f"{type(error).__name__}: {_first_line(error)}", kept
    return "pass", kept


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:160]


def row(name: str, with_theirs: bool) -> dict[str, str]:
    """The results of one network."""
    pixels = side(name)
    torch.manual_seed(0)
    network, image = build_network(name, 10, (3, pixels, pixels)), torch.randn(2, 3, pixels, pixels)
    conditioned(randomise(network), image)
    verdict, seconds, kept = ours(network, image)
    other, other_kept = "not installed", float("nan")
    if with_theirs:
        other, other_kept = theirs(copy.deepcopy(network), image)
    values = (name, verdict, f"{seconds:.2f}", f"{kept:.3f}", other, f"{other_kept:.3f}")
    return dict(zip(COLUMNS, values, strict=True))


def read(path: Path) -> dict[str, dict[str, str]]:
    """Rows of a table that was written before, by network."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {r["network"]: r for r in csv.DictReader(file)}


def write(path: Path, rows: dict[str, dict[str, str]]) -> None:
    """The table, after each network, so that an interrupted run leaves what it found."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows.values())


def main() -> None:
    """Fill the table, in the order of the list."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", help="names, whose rows are replaced; default: all")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the table to write")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    installed = importlib.util.find_spec("torch_pruning") is not None
    if not installed:
        print("torch_pruning is not installed; its columns stay empty (see --help)")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    rows = read(arguments.out) if arguments.networks else {}
    for name in arguments.networks or names():
        rows[name] = row(name, installed)
        print(" | ".join(rows[name].values()), flush=True)
        gc.collect()
        write(arguments.out, rows)
    for column in ("gnnrl", "torch_pruning"):
        passed = sum(r[column] == "pass" for r in rows.values())
        print(f"{column}: {passed} of {len(rows)} pass")


if __name__ == "__main__":
    main()
