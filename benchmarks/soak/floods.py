"""Random actions through every search space, random values through params.yaml."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.soak.counting import Trial
from benchmarks.soak.damage import flipped, mutated
from benchmarks.soak.stages import ROOT, Pipeline
from gnnrl.errors import UserError
from gnnrl.files import read_yaml
from gnnrl.graph.budget import Budget
from gnnrl.graph.extract import extract
from gnnrl.networks.build import build_network
from gnnrl.params import check
from gnnrl.pruning.importance import l1
from gnnrl.search.spaces.channels import ChannelSpace
from gnnrl.search.spaces.filters import FilterSpace
from gnnrl.search.spaces.layers import LayerSpace
from gnnrl.search.spaces.weights import WeightSpace

NETWORKS = {"resnet20": 0.8, "basic_cnn_eighth": None}  # what remains without removable layers
EXTREMES = {  # accepted before, although a run with them makes no sense
    "extract.protect": [[""], [" "]],
    "train.recipe.momentum": [1, 1.0],
    "train.recipe.label_smoothing": [1],
    "data.std": [[1e-300, 1, 1], [0, 1, 1]],
    "data.mean": [[1e300, 0, 0], [-1, 0, 0]],
    "search.reward.race": [10**9],
    "search.rescore": [{"plans": 10**6, "images": 10**6}],
    "search.evaluations": [-1, 2**70, float("nan")],
    "pretrain.weights": [""],
    "network.name": ["", "\0"],
    "gnn.hidden": [10**9],
}


def actions(pipeline: Pipeline, seed: int) -> Iterator[Trial]:
    """Yield random actions on all spaces of two networks in turn."""
    known, number = list(_spaces()), 0
    while True:
        for what, space in known:
            draw = np.random.default_rng([seed, number])
            yield Trial(f"actions on {what}", number, partial(act, space, what, draw))
        number += 1


def _spaces() -> Iterator[tuple[str, Any]]:
    for name, shortest in NETWORKS.items():
        network = build_network(name, 10, (3, 32, 32)).eval()
        graph = extract(network, torch.zeros(1, 3, 32, 32))
        scores = l1(network, graph)
        yield f"channels, {name}", ChannelSpace(graph, scores, budget=0.5)
        yield f"weights, {name}", WeightSpace(graph, scores, budget=0.5)
        yield f"filters, {name}", FilterSpace(graph, scores, Budget(sparsity=0.5))
        if shortest is not None:
            yield f"layers, {name}", LayerSpace(graph, Budget(flops=shortest))


def act(space: Any, what: str, draw: np.random.Generator) -> str:
    """Give a space a random action, legal or not; say what became of it."""
    kind, action = draw.integers(6), draw.random(space.size)
    if what.startswith("layers"):
        action = (action < draw.random()).astype(float)
    elif what.startswith("filters"):  # most have the right number, some of these a part too few
        action = (action.argsort().argsort() < space.size // 2).astype(float)
    else:
        action *= draw.choice([1.0, 1e-6, 1e6])
    spoilt = kind == 0
    if spoilt:
        action[draw.integers(space.size)] = draw.choice([np.nan, np.inf, -np.inf])
    elif kind == 1:
        action = action[: draw.integers(space.size)]
    try:
        plan = space.plan(action)
    except UserError as error:
        return "sentence" if "\n" not in str(error) else "traceback"
    except Exception as error:
        print(f"{what}: {type(error).__name__}: {error}", file=sys.stderr)
        return "traceback"
    empty = any(not kept for kept in plan.kept.values())
    over = not what.startswith("filters") and space.used(plan) > space.budget.fraction + 1e-9
    return "silently wrong" if spoilt or empty or over else "plan within the budget"


def parameters(pipeline: Pipeline, seed: int) -> Iterator[Trial]:
    """Yield changes of params.yaml: of its values, of its bytes, and what was nonsense before."""
    text = (ROOT / "params.yaml").read_bytes()
    pipeline.folder.mkdir(parents=True, exist_ok=True)
    values, file = yaml.safe_load(text), pipeline.folder / "params.yaml"
    odd = [(key, value) for key, values in EXTREMES.items() for value in values]
    number = 0
    while True:
        chance = random.Random(f"{seed} parameters {number}")
        yield Trial("values of params.yaml", number, partial(change, values, chance))
        if number % 4 == 0:
            yield Trial("bytes of params.yaml", number // 4, partial(spoil, text, file, chance))
        if number < len(odd):
            key, value = odd[number]
            yield Trial("nonsense", number, partial(nonsense, values, key, value))
        number += 1


def change(values: dict[str, Any], chance: random.Random) -> str:
    """Change one to three values of params.yaml."""
    for _ in range(chance.randint(1, 3)):
        values = mutated(values, chance)
    return _checked(values)


def spoil(text: bytes, file: Path, chance: random.Random) -> str:
    """Change bytes of params.yaml."""
    file.write_bytes(flipped(text, chance))
    try:
        values = read_yaml(file)
    except UserError as error:
        return "sentence" if "\n" not in str(error) else "traceback"
    except Exception as error:
        print(f"params.yaml: {type(error).__name__}: {error}", file=sys.stderr)
        return "traceback"
    return _checked(values)


def nonsense(values: dict[str, Any], key: str, value: Any) -> str:
    """Set a key to a value with which no run makes sense."""
    section, *rest = key.split(".")
    inner: Any = value
    for name in reversed(rest[1:]):
        inner = {name: inner}
    changed = {**values, section: {**values.get(section, {}), rest[0]: inner}}
    how = _checked(changed)
    return "nonsense accepted" if how == "accepted" else how


def _checked(values: dict[str, Any]) -> str:
    try:
        check(values)
    except UserError as error:
        return "sentence" if "\n" not in str(error) else "traceback"
    except Exception as error:
        print(f"params: {type(error).__name__}: {error}", file=sys.stderr)
        return "traceback"
    return "accepted"
