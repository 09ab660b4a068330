"""Accuracy at equal latency: a budget of latency against one of flops, and width against depth.

    python -m stages.pretrain …        (a network adapted to the images: a checkpoint)
    python -m benchmarks.joint --images FOLDER --checkpoint final.safetensors --epochs 1
    python -m benchmarks.joint --images FOLDER --checkpoint final.safetensors --measure

Every method searches with the same agent, evaluations, calibration images and reward images, for a
subnet that takes the same share of the dense network's latency by one table (ONNX Runtime, one
image, one thread).  `flops` searches within the budget of flops whose allocation takes as long as
the budget of latency allows, then with more as long as the plan that it finds meets that, or with
less until it does.
The plan that is found is refitted layer by layer and, with
--epochs, trained with the dense network as teacher.  `torch-pruning` (with --torch-pruning: the
folder it is installed in) prunes the channels inside blocks by Taylor importance, globally and in
one step, at the lowest ratio whose subnet meets the latency by the table, 0.72 of the dense
network's at best; it is trained alike, and not refitted.  Each run is one row; a run that has a row
is not repeated.  --measure, on the machine of the table, which need not be the one that searched:
times the plans that were found, side by side with the dense network; `latency` is the median, round
by round, of subnet over dense network.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas
import torch
from torch import nn

from benchmarks.after_repair import REFIT_IMAGES, setting_of
from benchmarks.harness import (
    Setting,
    append,
    correct,
    done,
    existing,
    losses_for_savings,
    options,
    packed,
)
from benchmarks.pruning_final import refitted
from benchmarks.pruning_search import CALIBRATION, KIND, calibration_of
from benchmarks.torch_pruning_taylor import RIVAL, add_option, lowest
from gnnrl.agents.registry import build_agent
from gnnrl.checkpoint import Checkpoint
from gnnrl.data.calibration import calibration_images, labelled_images
from gnnrl.errors import UserError
from gnnrl.evaluation.base import Evaluator
from gnnrl.graph.budget import largest
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.latency import LatencyTable, predicted
from gnnrl.measurement.latency import time_networks
from gnnrl.measurement.latency_table import table_of
from gnnrl.measurement.running import machine_of
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import Surgeon
from gnnrl.runtime import device, generator, seed_everything
from gnnrl.search import build
from gnnrl.search.loop import search
from gnnrl.search.rescoring import Rescoring
from gnnrl.search.settings import SearchSettings
from gnnrl.search.spaces.channels import Widths
from gnnrl.search.spaces.joint import JointSpace
from gnnrl.training.distillation import Distillation, Objective
from gnnrl.training.loop import train
from gnnrl.training.recipe import TrainingRecipe

STEP = 1.02
"""Between budgets of flops of which the largest that meets a latency is taken."""
AROUND, WHOLE = {"initial_action": 0.5}, PruningPlan()
LEAST_DEPTH, START = "least depth", "start"
"""Plans by the errors that the calibration pass measured: without the blocks that lose least for
what they save, all others whole; and the plan that a search of depth and width starts from."""
RESCORED, RESCORED_ON = 3, 1000
"""Plans that are scored again, and on how many images."""
RATE = 0.001
"""Of the training after the refit; three times as much makes a refitted subnet worse."""


@dataclass(frozen=True)
class Method:
    """A space, and an agent on it.

    control: its plan without a search.  flops: a budget of it.  rescored: the best plans, with that
    from which the search started, are refitted and scored on other images; the best one counts.
    """

    space: str
    control: str = ""
    flops: bool = False
    prior: str = "reconstruction"
    rescored: bool = False


METHODS = {
    "uniform width": Method("channels", "uniform"),
    "uniform depth": Method("joint", "uniform depth"),
    "uniform depth and width": Method("joint", "uniform"),
    "allocation": Method("channels", "allocation"),
    "least depth": Method("joint", LEAST_DEPTH),
    "least depth and width": Method("joint", START),
    "flops": Method("channels", flops=True),
    "width": Method("channels"),
    "depth": Method("layers", prior="none"),
    "joint": Method("joint"),
    "joint, rescored": Method("joint", rescored=True),
}
KEYS = ("checkpoint", "budget", "agent", "evaluations", "epochs", "method", "seed")


def flops_of(setting: Setting, table: LatencyTable, budget: float, seed: int) -> float:
    """Return the budget of flops whose allocation takes this share of the latency."""
    found, graph = calibration_of(setting, seed), setting.graph
    whole = predicted(graph, table, WHOLE)

    def fits(share: float) -> bool:
        space = Widths(
            graph, found.importance, share, curves=found.curves, prior="reconstruction",
            multiple=table.multiple,
        )  # fmt: skip
        return predicted(graph, table, space.uniform()) <= budget * whole

    return round(largest(fits, 0.02, 1.0, steps=10)[0], 4)


def plan_of(
    setting: Setting, method: Method, table: LatencyTable, file: Path, key: tuple
) -> tuple[PruningPlan, dict[str, object]]:
    """Return the plan of a method, and the figures of its search."""
    _, budget, *_, seed = key
    if not method.flops:
        return searched(setting, method, table, file, key, {"latency": budget})
    share, whole = flops_of(setting, table, budget, seed), predicted(setting.graph, table, WHOLE)
    found: dict[float, tuple[PruningPlan, dict[str, object]]] = {}
    while True:  # to the largest share whose plan, not only the allocation, meets the latency
        found[share] = searched(setting, method, table, file, key, {"flops": share})
        fits = predicted(setting.graph, table, found[share][0]) <= budget * whole
        other = round(share * STEP if fits else share / STEP, 4)
        if other in found:
            return found[share if fits else other]
        share = other


def searched(
    setting: Setting, method: Method, table: LatencyTable, file: Path, key: tuple,
    asked: dict[str, float],
) -> tuple[PruningPlan, dict[str, object]]:  # fmt: skip
    """Return the plan of a method within a budget, and the figures of its search."""
    *_, agent, evaluations, _, _, seed = key
    settings = SearchSettings(
        seed=seed, space=method.space, budget=asked, importance="reconstruction",
        prior=method.prior, calibration_images=CALIBRATION, latency_table=str(file),
        multiple=table.multiple,
        reward={"kind": KIND, "compensation": "gram", "precision": "auto", "batch_size": 512},
    )  # fmt: skip
    surgeon = Surgeon(setting.network.eval(), setting.graph)
    inputs = build.Inputs(surgeon, setting.reward, setting.train)
    env = build.make_env(settings, inputs, build.Calibrated(calibration_of(setting, seed)))
    if method.control:
        controls = own_controls(env.space) | env.space.controls()
        if method.control not in controls:
            raise UserError(f"{method.control} does not meet the budget")
        return controls[method.control], {"asked_of": "latency", "plans": 0}
    own = {**AROUND, "initial_std": 0.4} if agent == "ppo" else AROUND
    own = {} if agent in ("solver", "random", "evopress") else own
    if method.space == "layers":  # binary: an action says what is removed
        own = {**own, "initial_action": 0.2}
    player = build_agent(agent, env, seed=seed, **own)
    again = second_look(setting, env.evaluate, seed) if method.rescored else None
    left = evaluations if again is None else again.left_of(evaluations)
    best = 1 if again is None else again.plans
    found = search(env, player, evaluations=left, batch=8, seed=seed, leaders=best)
    found = found if again is None else again.applied(found)
    plans = sum(not row["cached"] for row in found.evaluations)
    return found.plan, {"asked_of": next(iter(asked)), "plans": plans}


def second_look(setting: Setting, evaluator: Evaluator, seed: int) -> Rescoring:
    """Return what refits the best plans of a search and scores them on training images."""
    images = labelled_images(setting.train, RESCORED_ON, seed, device())
    calibration = calibration_images(setting.train, REFIT_IMAGES, seed, device())
    return Rescoring.of(evaluator, RESCORED, *images, calibration, seed, "sequential")


def own_controls(space: object) -> dict[str, PruningPlan]:
    """Return the plans by measured errors that no search has as a control."""
    if not isinstance(space, JointSpace):
        return {}
    order = np.argsort(losses_for_savings(space))
    found = {START: space.plan(np.full(space.size, 0.5))}
    for count in range(len(order) + 1):
        gone = frozenset(space.parts[i] for i in order[:count])
        if space.left(gone).fits:
            return found | {LEAST_DEPTH: PruningPlan(removed_layers=gone)}
    return found


def measure(setting: Setting, table: LatencyTable, given: argparse.Namespace) -> None:
    """Write the latency of every plan of the rows that has none yet."""
    out = given.out.with_stem(f"{given.out.stem}_latency")
    surgeon = Surgeon(setting.network, setting.graph)
    for row in pandas.read_csv(given.out).to_dict("records"):
        if done(out, {"plan": row["plan"]}):
            continue
        plan = PruningPlan.load(given.plans / f"{row['plan']}.json")
        networks = {"dense": setting.network, "subnet": surgeon.cut(plan)}
        shape, runtime = setting.graph.input_shape, table.runtime
        taken = time_networks(networks, shape, table.batch_size, given.rounds, runtime, 1)
        ratio = taken["subnet"].over(taken["dense"])
        append(out, {"plan": row["plan"], "predicted": row["predicted"],
                     "latency": round(ratio.milliseconds, 4), "spread": round(ratio.spread, 4),
                     "machine": machine_of(device())})  # fmt: skip
        print(row["budget"], row["method"], row["seed"], row["predicted"], ratio.milliseconds)


def trained(setting: Setting, subnet: nn.Module, key: tuple, images: int) -> nn.Module:
    """Train a subnet on so many images with the dense network as teacher."""
    *_, epochs, _, seed = key
    if epochs:
        recipe = TrainingRecipe(epochs=epochs, learning_rate=RATE, batch_size=128)
        teacher = Distillation(setting.network, 0.9)
        order = torch.randperm(len(setting.train), generator=generator(seed, "training"))
        drawn = setting.train.take(order[:images])
        train(subnet, drawn, recipe, seed=seed, objective=Objective(distillation=teacher))
    return subnet.eval()


def found_by(
    setting: Setting, table: LatencyTable, file: Path, key: tuple
) -> tuple[nn.Module, PruningPlan, dict[str, object]]:
    """Return the subnet of a method, refitted where the method is ours, its plan, its figures."""
    _, budget, *_, name, seed = key
    graph = setting.graph
    whole = predicted(graph, table, WHOLE)
    if name == RIVAL:

        def fits(subnet: nn.Module) -> bool:
            return predicted(graph, table, as_wide_as(graph, subnet)) <= budget * whole

        subnet, figures = lowest(setting, fits, seed), {"asked_of": "latency", "plans": 0}
        plan = as_wide_as(graph, subnet)
    else:
        plan, figures = plan_of(setting, METHODS[name], table, file, key)
        subnet = refitted(setting, plan, REFIT_IMAGES, seed)
    share = predicted(graph, table, plan) / whole
    told = {"removed_layers": len(plan.removed_layers), "predicted": round(share, 4)}
    return subnet, plan, {**figures, **told}


def as_wide_as(graph: ComputationalGraph, subnet: nn.Module) -> PruningPlan:
    """Return the plan of a subnet's widths, which costs as much; its filters are the first ones."""
    sizes = {
        name: len(module.weight) for name, module in subnet.named_modules() if name in graph.layers
    }
    whole = {name: len(graph.layers[name].filter_units) for name in sizes}
    return PruningPlan({n: tuple(range(k)) for n, k in sizes.items() if k < whole[n]})


def one(setting: Setting, table: LatencyTable, key: tuple, given: argparse.Namespace) -> None:
    """Write the row of one run."""
    seed_everything(key[-1])
    start = time.perf_counter()
    subnet, plan, figures = found_by(setting, table, given.table, key)
    plan.save(given.plans / f"{plan.digest}.json")
    seconds = time.perf_counter() - start
    untrained = float(correct(subnet, setting.report).mean())
    subnet = trained(setting, subnet, key, given.training_images)
    right = correct(subnet, setting.report)
    row = {
        **dict(zip(KEYS, key, strict=True)),
        **figures,
        "plan": plan.digest,
        "accuracy_before_training": untrained,
        "accuracy": float(right.mean()),
        "search_seconds": round(seconds, 1),
        "machine": f"{machine_of(device())}, {table.machine}",
        "torch": torch.__version__,
        "correct": packed(right),
    }
    append(given.out, row)
    print(*key[1:], row["predicted"], round(row["accuracy"], 4), flush=True)


def main() -> None:
    parser = options(__doc__, "joint.csv")
    parser.add_argument("--checkpoint", type=Path, required=True, help="of the dense network")
    parser.add_argument("--table", type=Path, help="a latency table; default: measured, and kept")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.5, 0.3333, 0.25])
    parser.add_argument("--methods", nargs="+", choices=(*METHODS, RIVAL), default=list(METHODS))
    parser.add_argument("--agent", default="ppo")
    parser.add_argument("--evaluations", type=int, default=80)
    parser.add_argument("--epochs", type=int, default=0, help="of training after the refit")
    parser.add_argument("--training-images", type=int, default=5000, help="of each epoch")
    add_option(parser)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--plans", type=Path, default=Path(".gnnrl/joint"), help="a folder")
    parser.add_argument("--measure", action="store_true", help="time the plans of the rows")
    parser.add_argument("--rounds", type=int, default=100, help="of --measure")
    given = parser.parse_args()
    checkpoint = Checkpoint.load(existing(given.checkpoint, "--checkpoint"))
    setting = setting_of(checkpoint, given.images)
    digest = checkpoint.digest[:12]
    given.table = given.table or Path(".gnnrl") / f"latency-{digest}.json"
    if not given.table.exists():
        surgeon = Surgeon(setting.network, setting.graph)
        table_of(surgeon, 1, 15, "onnxruntime", 1).save(given.table)
    table = LatencyTable.load(given.table)
    if given.measure:
        measure(setting, table, given)
        return
    given.plans.mkdir(parents=True, exist_ok=True)
    for seed in given.seeds:
        for budget in given.budgets:
            for name in given.methods:
                spend = 0 if name == RIVAL or METHODS[name].control else given.evaluations
                key = (digest, budget, given.agent, spend, given.epochs, name, seed)
                if done(given.out, dict(zip(KEYS, key, strict=True))):
                    continue
                try:
                    one(setting, table, key, given)
                except UserError as error:  # depth alone may not reach the budget
                    print(*key[1:], "left out:", error, flush=True)


if __name__ == "__main__":
    main()
