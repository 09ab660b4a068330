"""A trained network made smaller by one call: `gnnrl.compress(network, images, budget=0.5)`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from gnnrl.pruning.plan import PruningPlan

SEARCH: dict[str, Any] = {
    "importance": "reconstruction",
    "prior": "reconstruction",
    "calibration_images": 256,
    "reward": {"kind": "jensen_shannon", "compensation": "gram"},
    "ppo": {"initial_action": 0.5, "initial_std": 0.4},
}


@dataclass(frozen=True)
class Compressed:
    """network: the pruned and repaired network, in evaluation mode.  plan: what it keeps.
    figures: `accuracy` and `dense_accuracy` on test images that the search has not seen, and
    `flops_kept` and `parameters_kept`.  speed: how many times as fast as the dense network one
    image passes, by the name of the runtime: torch, and onnxruntime where it is installed."""

    network: nn.Module
    plan: PruningPlan
    figures: dict[str, float]
    speed: dict[str, float]


def compress(
    network: nn.Module,
    images: str | Path,
    *,
    budget: float = 0.5,
    resource: str = "flops",
    input_shape: tuple[int, int, int] = (3, 224, 224),
    evaluations: int = 96,
    epochs: int = 5,
    seed: int = 0,
    **data: Any,
) -> Compressed:
    """Search, prune, repair and train a trained network; it is left as it was.

    images: folder with train/CLASS and test/CLASS; up to 500 of the test images, at most half of
    them, score the search.  budget: fraction of the dense network's `resource` (flops, parameters)
    to keep.  epochs: of training with the dense network as teacher.  data: more settings of the
    section `data`, such as mean and std.

    Raises `UserError` for anything that cannot be compressed.
    """
    import torch

    from gnnrl.agents.registry import build_agent
    from gnnrl.data.calibration import calibration_images
    from gnnrl.data.load import load_data
    from gnnrl.data.settings import DataRecipe
    from gnnrl.errors import UserError
    from gnnrl.graph.cost import cost
    from gnnrl.graph.extract import extract
    from gnnrl.measurement.comparison import latency
    from gnnrl.measurement.running import unusable
    from gnnrl.measurement.settings import EvaluateSettings
    from gnnrl.pruning.compensation.sequential import compensate
    from gnnrl.pruning.surgery import Surgeon
    from gnnrl.runtime import device, generator, seed_everything
    from gnnrl.search.build import Inputs, make_env
    from gnnrl.search.loop import search
    from gnnrl.search.settings import BudgetSettings, SearchSettings
    from gnnrl.training.distillation import Distillation, Objective
    from gnnrl.training.evaluate import accuracy
    from gnnrl.training.loop import train
    from gnnrl.training.recipe import TrainingRecipe

    if not isinstance(network, torch.nn.Module):
        raise UserError(
            f"got {type(network).__name__} as network, expected a trained torch.nn.Module"
        )
    if resource == "latency":
        raise UserError(
            "got resource latency, expected flops or parameters: `python -m stages.compress "
            "--latency` measures the table that it needs"
        )
    asked = BudgetSettings(**{"flops": None, resource: budget})
    settings = SearchSettings(budget=asked, evaluations=evaluations, seed=seed, **SEARCH)
    wanted: dict[str, Any] = {
        "name": "image_folder", "root": str(images), "reward_from": "test", "seed": seed, **data,
    }  # fmt: skip
    sizes = load_data(DataRecipe(**{**wanted, "reward_images": 1}), input_shape).sizes()
    half = max(1, (sizes["test"] + 1) // 2)
    splits = load_data(DataRecipe(**{"reward_images": min(500, half), **wanted}), input_shape)
    example = torch.zeros(1, *input_shape)
    runtimes = tuple(name for name, why in unusable(network, example).items() if not why)
    seed_everything(seed)
    network = network.to(device()).eval()
    graph = extract(network, example.to(device()))
    surgeon = Surgeon(network, graph)
    env = make_env(settings, Inputs(surgeon, splits.reward, splits.train))
    agent = build_agent(settings.agent, env, seed=seed, **settings.agent_parameters())
    batch = settings.batch
    plan = search(env, agent, evaluations=evaluations, batch=batch, seed=seed, progress=True).plan
    images_seen = calibration_images(splits.train, 1024, seed, device())
    subnet = compensate(surgeon, plan, images_seen, generator(seed, "compensation"))
    recipe = TrainingRecipe(epochs=epochs, learning_rate=0.01)
    taught = Objective(distillation=Distillation(network, 0.9))
    train(subnet, splits.train, recipe, seed=seed, objective=taught, visible=True)
    dense, left = cost(graph), cost(graph, plan)
    figures = {
        "dense_accuracy": accuracy(network, splits.test),
        "accuracy": accuracy(subnet, splits.test),
        "flops_kept": left.flops / dense.flops,
        "parameters_kept": left.parameters / dense.parameters,
    }
    timed = EvaluateSettings(latency_runtimes=runtimes, latency_batches=(1,))
    found = latency({"dense": network, "subnet": subnet.eval()}, input_shape, timed)["runtimes"]
    speed = {name: found[name]["1"]["speedup"]["median"] for name in runtimes}
    return Compressed(subnet, plan, figures, speed)
