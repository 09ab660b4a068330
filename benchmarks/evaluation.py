"""What one evaluation and one update of the agent cost, beside what they would cost plainly.

    python -m benchmarks.evaluation --images ../shared/data/cifar10-fragment

Plans that halve the flops are evaluated on 500 images on one thread, turn by turn by a plain
evaluator (a deep copy is cut, float32, batch norm measured anew in a second pass) and by ours.
Processor seconds, which other processes disturb less than the clock does; the fastest of the
rounds and their median.  A row per figure.
"""

from __future__ import annotations

import argparse
import copy
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.pruning_search import WEIGHTS, Setting, append, load
from gnnrl.pruning.importance import l1
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.recalibration import recalibrate
from gnnrl.pruning.surgery import prune
from gnnrl.search.agents.build import build_agent
from gnnrl.search.env import PruningEnv
from gnnrl.search.episodes import rated, roll_out
from gnnrl.search.evaluator import Evaluator
from gnnrl.search.reward import Evaluation
from gnnrl.search.rollout import Rollout
from gnnrl.search.spaces.channels import ChannelSpace

IMAGES = 500


def timed(function: Callable[[], object]) -> float:
    """Processor seconds of one call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def plainly(setting: Setting, images: torch.Tensor, plan: PruningPlan) -> torch.Tensor:
    """An evaluation as it is usually written."""
    subnet: nn.Module = prune(copy.deepcopy(setting.network), setting.graph, plan).eval()
    with torch.no_grad():
        recalibrate(subnet, [images])
        return subnet(images).argmax(1)


def around_the_network(evaluator: Evaluator, plan: PruningPlan, logits: torch.Tensor) -> None:
    """Everything in an evaluation but running the network."""
    with torch.inference_mode():
        evaluator.cut(plan)
    evaluator.rated(plan, logits)


def evaluations(setting: Setting, rounds: int) -> dict[str, list[float]]:
    """Seconds of evaluations, way by way."""
    images, labels = next(iter(setting.reward.batches(IMAGES, torch.device("cpu"))))
    space = ChannelSpace(setting.graph, l1(setting.network, setting.graph), 0.5)
    how = {"statistics": "matched", "reward": "divergence"}
    exact = Evaluator(setting.network, setting.graph, images, labels, **how)
    ours = Evaluator(
        setting.network, setting.graph, images, labels, precision=torch.bfloat16, **how
    )
    random, found = torch.Generator().manual_seed(0), {}
    for _ in range(rounds + 1):
        plan = space.plan(0.3 + 0.4 * space.random(random))
        logits = ours.logits(plan)
        ways = {
            "plain": lambda plan=plan: plainly(setting, images, plan),
            "float32": lambda plan=plan: exact.evaluate(plan),
            "bfloat16": lambda plan=plan: ours.evaluate(plan),
            "around the network": lambda p=plan, x=logits: around_the_network(ours, p, x),
        }
        for name, way in ways.items():
            found.setdefault(name, []).append(timed(way))
    return {name: seconds[1:] for name, seconds in found.items()}  # the first warms up


def updates(setting: Setting, rounds: int, batch: int = 8) -> list[float]:
    """Seconds of an update of ppo, from a batch of plans with made-up rewards."""
    space = ChannelSpace(setting.graph, l1(setting.network, setting.graph), 0.5)
    env = PruningEnv(space, lambda plans: [])
    agent = build_agent("ppo", env)
    random, seconds = torch.Generator().manual_seed(0), []
    for first in range(rounds + 1):
        played = roll_out(env, agent, range(first * batch, (first + 1) * batch), random)
        draw = np.random.default_rng(first)
        lessons = tuple(rated(e, Evaluation(float(draw.normal()))) for e in played)
        seconds.append(timed(lambda given=lessons: agent.learn(Rollout(given))))
    return seconds[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=WEIGHTS, default="resnet56")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--images", type=Path, default=Path("../shared/data/cifar10-fragment"))
    parser.add_argument("--weights", type=Path, default=Path("../shared/data/weights"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/evaluation.csv"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    setting = load(options.network, options.images, options.weights)
    found = {f"evaluation, {k}": v for k, v in evaluations(setting, options.rounds).items()}
    found["update of ppo"] = updates(setting, options.rounds)
    versions = {"torch": torch.__version__, "machine": platform.machine()}
    plain = min(found["evaluation, plain"])
    for name, seconds in found.items():
        best, middle = min(seconds), float(np.median(seconds))
        row = {"network": options.network, "figure": name, "rounds": len(seconds)}
        row |= {"fastest": round(best, 4), "median": round(middle, 4)}
        whole = name.startswith("evaluation") and "around" not in name
        row["plain_over_this"] = round(plain / best, 2) if whole else ""
        append(options.out, {**row, **versions})
        print(f"{name:32} fastest {best:.4f} s  median {middle:.4f} s", flush=True)


if __name__ == "__main__":
    main()
