"""The time of one evaluation and of one update of the agent, against a straightforward version.

    python -m benchmarks.data
    python -m benchmarks.evaluation

Plans that halve the flops are evaluated on 500 images on one thread: by a straightforward
evaluator (it prunes a deep copy in float32 and re-estimates batch norm in a second pass) and by
ours in float32, in bfloat16, and with batch norm folded into the convolutions by the statistics of
the first 100 images.  The figures are processor seconds, which other processes disturb less than
wall-clock time: the fastest plan and the median.  Each evaluator runs all plans in turn, as in a
search, because oneDNN caches what it compiled for recent shapes.  Then follows the rank correlation
of the rewards of 48 plans (a third random, a third around one half, a third close to uniform) with
the rewards in float32 without folding.  Each figure is one row.
"""

from __future__ import annotations

import copy
import platform
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from benchmarks.harness import PUBLISHED, Setting, append, load, options
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
"""Range of the keep ratios, around one half, of the plans whose ranks are compared."""


def timed(function: Callable[[], object]) -> float:
    """Processor seconds of one call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def plainly(setting: Setting, images: Tensor, plan: PruningPlan) -> Tensor:
    """Evaluate a plan in the straightforward way; return the predicted classes."""
    subnet: nn.Module = prune(copy.deepcopy(setting.network), setting.graph, plan).eval()
    with torch.no_grad():
        recalibrate(subnet, [images])
        return subnet(images).argmax(1)


def around_the_network(evaluator: OneShot, plan: PruningPlan, logits: Tensor) -> None:
    """Do everything in an evaluation except the forward pass."""
    with torch.inference_mode():
        evaluator.cut(plan)
    evaluator.scored(plan, logits)


def around_the_folded(evaluator: OneShot, plan: PruningPlan, images: Tensor) -> float:
    """Return the processor seconds of a folded evaluation except its forward passes."""
    with torch.inference_mode():
        folded = FoldedSubnet(evaluator.cut(plan))
        logits = folded.first(images.to(torch.bfloat16)).float()
        logits = logits[:1].expand(IMAGES, -1).contiguous()
        seconds = timed(lambda: folded.fold())
    return seconds + timed(lambda: around_the_network(evaluator, plan, logits))


def evaluators(setting: Setting) -> tuple[dict[str, OneShot], Tensor]:
    """Return our evaluators by name, and the images that they use."""
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
    """Return the processor seconds of evaluations by evaluator."""
    ours, images = evaluators(setting)
    space = ChannelSpace(setting.graph, l1(setting.network, setting.graph), 0.5)
    random = torch.Generator().manual_seed(0)
    plans = [space.plan(0.3 + 0.4 * space.random(random)) for _ in range(rounds + 1)]
    found = {"plain": [timed(lambda p=p: plainly(setting, images, p)) for p in plans]}
    for name, evaluator in ours.items():
        found[name] = [timed(lambda p=p, e=evaluator: e.evaluate(p)) for p in plans]
    logits = ours["bfloat16"].outputs(plans[0])
    found["around the network"] = [
        timed(lambda p=p: around_the_network(ours["bfloat16"], p, logits)) for p in plans
    ]
    found["around the folded network"] = [
        around_the_folded(ours["folded"], p, images[:8]) for p in plans
    ]
    return {name: seconds[1:] for name, seconds in found.items()}  # the first warms up


def agreements(setting: Setting) -> dict[str, float]:
    """Return the rank correlation of rewards with those in float32 without folding."""
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
    """Return the processor seconds of updates of ppo on batches with random rewards."""
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
    parser = options(__doc__, "evaluation.csv")
    parser.add_argument("--network", choices=PUBLISHED, default="resnet56")
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
    torch.set_num_threads(1)
    setting = load(given.network, given.images, given.weights)
    found = {f"evaluation, {k}": v for k, v in evaluations(setting, given.rounds).items()}
    found["update of ppo"] = updates(setting, given.rounds)
    versions = {"torch": torch.__version__, "machine": platform.machine()}
    plain = min(found["evaluation, plain"])
    for name, seconds in found.items():
        best, middle = min(seconds), float(np.median(seconds))
        row = {"network": given.network, "figure": name, "rounds": len(seconds)}
        row |= {"fastest": round(best, 4), "median": round(middle, 4)}
        whole = name.startswith("evaluation") and "around" not in name
        row["plain_over_this"] = round(plain / best, 2) if whole else ""
        append(given.out, {**row, "rank_correlation": "", **versions})
        print(f"{name:32} fastest {best:.4f} s  median {middle:.4f} s", flush=True)
    for network in PUBLISHED:
        for way, rank in agreements(load(network, given.images, given.weights)).items():
            row = {"network": network, "figure": f"rewards, {way}", "rounds": PLANS}
            row |= {"fastest": "", "median": "", "plain_over_this": ""}
            append(given.out, {**row, "rank_correlation": round(rank, 4), **versions})
            print(f"{network} rewards, {way:10} rank correlation {rank:.4f}", flush=True)


if __name__ == "__main__":
    main()
