"""AGMC's encoder and decoder against the multi-stage encoder, each with PPO and DDPG.

    python -m stages.pretrain …        (a network adapted to the images: a checkpoint)
    python -m benchmarks.encoder_decoder --images FOLDER --checkpoint final.safetensors --seeds 5

Half of the flops, channels by the size of their filters, no prior: what an agent knows it has
learned.  Every search may evaluate the same number of plans, on the same 100 test images; the
reward is the Jensen-Shannon divergence from the dense network.  The plan found is measured on
other test images, with batch norm estimated anew on 512 training images.  Each run is one row; a
run that has a row is not repeated.  --table prints what the rows say.
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.harness import MEAN, STD, append, correct, done, existing, options, packed
from gnnrl.agents.registry import build_agent
from gnnrl.checkpoint import Checkpoint
from gnnrl.data.calibration import calibration_images
from gnnrl.data.load import DataRecipe, Splits, load_data
from gnnrl.evaluation.equivalent import EQUIVALENT
from gnnrl.graph.extract import extract
from gnnrl.pruning.matching import recalibrate_matched
from gnnrl.pruning.surgery import Surgeon
from gnnrl.report.sweep import markdown, spread
from gnnrl.runtime import seed_everything
from gnnrl.search import build
from gnnrl.search.loop import search
from gnnrl.search.settings import SearchSettings

REWARD_IMAGES, REPORT_IMAGES, RECALIBRATION = 100, 2000, 512
BUDGET, BATCH = 0.5, 8
KEYS = ("method", "evaluations", "seed")

GNN = {"hidden": 32, "layers": 2}
PPO = {"initial_std": 0.7}
DDPG = {"warmup": 16, "max_updates": 16, "batch_size": 16}
# of an episode of 12 decisions: as many episodes with the full noise, and as fast a decay
IN_TURN = {
    **DDPG,
    "warmup": 16 * 12,
    "noise_decay": 0.98 ** (1 / 12),
    "buffer_size": 1000,
}
DECODER: dict[str, Any] = {"encoder": "encoder_decoder"}

METHODS: dict[str, dict[str, Any]] = {
    "uniform": {"agent": "uniform"},
    "random": {"agent": "random"},
    "evolution": {"agent": "evolution"},
    "multi_stage, ppo": {"agent": "ppo", "ppo": PPO},
    "multi_stage, ddpg": {"agent": "ddpg", "ddpg": DDPG},
    "encoder_decoder, ppo": {**DECODER, "agent": "ppo", "ppo": PPO},
    "encoder_decoder, ddpg": {**DECODER, "agent": "ddpg", "ddpg": DDPG},
    "AGMC, ppo": {**DECODER, "in_turn": True, "agent": "ppo", "ppo": PPO},
    "AGMC, ddpg": {**DECODER, "in_turn": True, "agent": "ddpg", "ddpg": IN_TURN},
    "AGMC, ddpg, whole returns": {
        **DECODER,
        "in_turn": True,
        "agent": "ddpg",
        "ddpg": {**IN_TURN, "whole_returns": True},
    },
}
"""AGMC: one group per step."""


def loaded(images: Path, shape: tuple[int, ...]) -> Splits:
    """Return the images: some for the reward, the others unseen."""
    recipe = DataRecipe(
        "image_folder", str(existing(images, "--images")), reward_images=REWARD_IMAGES,
        reward_from="test", mean=MEAN, std=STD,
    )  # fmt: skip
    return load_data(recipe, shape)


def one(surgeon: Surgeon, splits: Splits, key: tuple, out: Path) -> None:
    """Search once and write the row."""
    name, evaluations, seed = key
    spend = int(np.ceil(evaluations * REWARD_IMAGES / EQUIVALENT))
    settings = SearchSettings(
        seed=seed, budget={"flops": BUDGET}, importance="l1", batch=BATCH, evaluations=spend,
        reward={"kind": "jensen_shannon", "precision": "auto"}, gnn=GNN, **METHODS[name],
    )  # fmt: skip
    seed_everything(seed)
    start = time.process_time()
    env = build.make_env(settings, build.Inputs(surgeon, splits.reward, splits.train))
    agent = build_agent(settings.agent, env, seed=seed, **settings.agent_parameters())
    if name == "uniform":  # inside residual blocks, as is usual
        plan, rewards = env.comparisons()["uniform"], []
        rewards = [env.evaluate([plan])[0].reward]
    else:
        found = search(env, agent, evaluations=spend, batch=BATCH, seed=seed)
        plan, rewards = found.plan, [row["reward"] for row in found.evaluations]
    figures = {
        "flops_kept": env.space.used(plan),
        "plans": len(rewards),
        "reward": max(rewards),
        "last_reward": rewards[-1],
        "search_cpu_seconds": round(time.process_time() - start, 1),
    }
    right = measure(surgeon, splits, plan, seed)
    measured = {
        "accuracy": right.mean(), "report_images": len(right), "torch": torch.__version__,
        "machine": platform.machine(), "correct": packed(right),
    }  # fmt: skip
    append(out, {**dict(zip(KEYS, key, strict=True)), **figures, **measured})
    print(*key, *figures.values(), round(float(right.mean()), 4), flush=True)


def measure(surgeon: Surgeon, splits: Splits, plan: Any, seed: int) -> np.ndarray:
    """Return which unseen images the subnet of a plan classifies correctly, bool `[N]`."""
    images = calibration_images(splits.train, RECALIBRATION, seed, torch.device("cpu"))
    subnet = surgeon.cut(plan).eval()
    recalibrate_matched(surgeon.network, surgeon.graph, subnet, plan, images)
    return correct(subnet, splits.test.take(torch.arange(0, len(splits.test), 4)[:REPORT_IMAGES]))


def table(rows: pd.DataFrame) -> str:
    """Return the rows as a table: mean and standard deviation over seeds."""
    lines: list[dict[str, str]] = []
    for name, part in rows.groupby("method", sort=False):
        lines.append(
            {"method": name, "seeds": str(len(part)),
             "reward, best": f"{part['reward'].mean():.3f}",
             "reward, last greedy": f"{part['last_reward'].mean():.3f}",
             "accuracy, %": spread(100 * part["accuracy"], 1),
             "CPU seconds": f"{part['search_cpu_seconds'].mean():.0f}"}
        )  # fmt: skip
    return markdown(list(lines[0]), [list(line.values()) for line in lines])


def main() -> None:
    parser = options(__doc__, "encoder_decoder.csv")
    parser.add_argument("--checkpoint", type=Path, help="of the dense network")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--evaluations", type=int, default=80, help="plans of a search")
    parser.add_argument("--table", action="store_true", help="of the rows that are there")
    given: argparse.Namespace = parser.parse_args()
    if given.table:
        print(table(pd.read_csv(existing(given.out, "--out"))))
        return
    if given.checkpoint is None:
        parser.error("--checkpoint: name the dense network")
    checkpoint = Checkpoint.load(existing(given.checkpoint, "--checkpoint"))
    network = checkpoint.restore().eval()
    graph = extract(network, torch.zeros(1, *checkpoint.input_shape))
    splits = loaded(given.images, checkpoint.input_shape)
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        for name in given.methods:
            key = (name, given.evaluations, seed)
            if not done(given.out, dict(zip(KEYS, key, strict=True))):
                one(Surgeon(network, graph), splits, key, given.out)


if __name__ == "__main__":
    main()
