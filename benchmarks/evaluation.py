"""What one evaluation and one update of the agent cost, beside what they would cost plainly.

    python -m benchmarks.evaluation --images ../shared/data/cifar10-fragment

Plans that halve the flops are evaluated on 500 images on one thread: by a plain evaluator (a deep
copy is cut, float32, batch norm measured anew in a second pass) and by ours, in float32, in
bfloat16, and with norms folded into convolutions, by the statistics of the first 100 images.
Processor seconds, which other processes disturb less than the clock does; the fastest of the plans
and their median.  Every way goes through all plans by itself, as in a search: oneDNN keeps what it
compiled for the shapes it saw last.  Then the rank correlation of the rewards of 48 plans (a third
random, a third around one half, a third close to uniform) with those in float32 and unfolded.
A row per figure.
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
from scipy.stats import spearmanr
from torch import Tensor, nn

from benchmarks.pruning_search import WEIGHTS, Setting, append, load
from gnnrl.agents.registry import build_agent
from gnnrl.evaluation.base import Evaluation
from gnnrl.evaluation.fused_batch_norm import FoldedSubnet
from gnnrl.evaluation.one_shot import OneShot
from gnnrl.evaluation.rewards import RewardSettings
from gnnrl.pruning.batch_norm import recalibrate
from gnnrl.pruning.importance import l1
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import Surgeon, prune
from gnnrl.rl.episodes import roll_out
from gnnrl.rl.rollout import Rollout
from gnnrl.search.build import mixed
from gnnrl.search.env import PruningEnv
from gnnrl.search.pending import evaluated
from gnnrl.search.spaces.channels import ChannelSpace

IMAGES, FIRST, PLANS = 500, 100, 48
SPREADS = (1.0, 0.4, 0.1)
"""How far the keep ratios of the plans whose ranks are compared are apart."""


def timed(function: Callable[[], object]) -> float:
    """Processor seconds of one call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def plainly(setting: Setting, images: Tensor, plan: PruningPlan) -> Tensor:
    """An evaluation as it is usually written."""
    subnet: nn.Module = prune(copy.deepcopy(setting.network), setting.graph, plan).eval()
    with torch.no_grad():
        recalibrate(subnet, [images])
        return subnet(images).argmax(1)


def around_the_network(evaluator: OneShot, plan: PruningPlan, logits: Tensor) -> None:
    """Everything in an evaluation but running the network."""
    with torch.inference_mode():
        evaluator.cut(plan)
    evaluator.scored(plan, logits)


def around_the_folded(evaluator: OneShot, plan: PruningPlan, images: Tensor) -> float:
    """Processor seconds of everything in such an evaluation but running the network."""
    with torch.inference_mode():
        folded = FoldedSubnet(evaluator.cut(plan))
        logits = folded.first(images.to(torch.bfloat16)).float()
        logits = logits[:1].expand(IMAGES, -1).contiguous()
        seconds = timed(lambda: folded.fold())
    return seconds + timed(lambda: around_the_network(evaluator, plan, logits))


def evaluators(setting: Setting) -> tuple[dict[str, OneShot], Tensor]:
    """Ours, by name, and the images they look at."""
    images, labels = (values[:IMAGES] for values in mixed(setting.reward, 0))
    how = {"statistics": "matched", "kind": "divergence"}
    fast = how | {"precision": "bfloat16"}
    ways = {"float32": how, "bfloat16": fast, "folded": fast | {"statistics_images": FIRST}}
    surgeon = Surgeon(setting.network, setting.graph)
    made = {
        name: OneShot(surgeon, images, labels, RewardSettings(**options))
        for name, options in ways.items()
    }
    return made, images


def evaluations(setting: Setting, rounds: int) -> dict[str, list[float]]:
    """Seconds of evaluations, way by way."""
    ours, images = evaluators(setting)
    space = ChannelSpace(setting.graph, l1(setting.network, setting.graph), 0.5)
    random = torch.Generator().manual_seed(0)
    plans = [space.plan(0.3 + 0.4 * space.random(random)) for _ in range(rounds + 1)]
    found = {"plain": [timed(lambda p=p: plainly(setting, images, p)) for p in plans]}
    for name, evaluator in ours.items():
        found[name] = [timed(lambda p=p, e=evaluator: e.evaluate(p)) for p in plans]
    logits = ours["bfloat16"].logits(plans[0])
    found["around the network"] = [
        timed(lambda p=p: around_the_network(ours["bfloat16"], p, logits)) for p in plans
    ]
    found["around the folded network"] = [
        around_the_folded(ours["folded"], p, images[:8]) for p in plans
    ]
    return {name: seconds[1:] for name, seconds in found.items()}  # the first warms up


def agreements(setting: Setting) -> dict[str, float]:
    """Rank correlation of rewards with those in float32 and unfolded, way by way."""
    ours, _ = evaluators(setting)
    space = ChannelSpace(setting.graph, l1(setting.network, setting.graph), 0.5)
    random = torch.Generator().manual_seed(1)
    drawn = [
        space.plan(0.5 + spread * (space.random(random) - 0.5))
        for spread in SPREADS
        for _ in range(PLANS // len(SPREADS))
    ]
    rewards = {name: [e.reward for e in evaluator(drawn)] for name, evaluator in ours.items()}
    exact = rewards.pop("float32")
    return {name: float(spearmanr(exact, given)[0]) for name, given in rewards.items()}


def updates(setting: Setting, rounds: int, batch: int = 8) -> list[float]:
    """Seconds of an update of ppo, from a batch of plans with made-up rewards."""
    space = ChannelSpace(setting.graph, l1(setting.network, setting.graph), 0.5)
    env = PruningEnv(space, lambda plans: [])
    agent = build_agent("ppo", env)
    random, seconds = torch.Generator().manual_seed(0), []
    for first in range(rounds + 1):
        played = roll_out(env, agent, range(first * batch, (first + 1) * batch), random)
        draw = np.random.default_rng(first)
        lessons = tuple(evaluated(e, Evaluation(float(draw.normal()))) for e in played)
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
        append(options.out, {**row, "rank_correlation": "", **versions})
        print(f"{name:32} fastest {best:.4f} s  median {middle:.4f} s", flush=True)
    for network in WEIGHTS:
        for way, rank in agreements(load(network, options.images, options.weights)).items():
            row = {"network": network, "figure": f"rewards, {way}", "rounds": PLANS}
            row |= {"fastest": "", "median": "", "plain_over_this": ""}
            append(options.out, {**row, "rank_correlation": round(rank, 4), **versions})
            print(f"{network} rewards, {way:10} rank correlation {rank:.4f}", flush=True)


if __name__ == "__main__":
    main()
