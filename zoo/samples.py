"""Try many plans of one network of the zoo: what the pretrained agent learns from.

    python -m zoo.samples --data digits --network plain_3

Around the allocation (with the calibration pass) and from weights alone (without), for each budget,
actions are drawn at random and scored by the shipped reward: the Jensen-Shannon divergence from
the dense network with Gram compensation.  Written to zoo/artifacts/DATA/NETWORK/samples.pt.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch_geometric.data import Data

from gnnrl.checkpoint import Checkpoint
from gnnrl.data.load import load_data
from gnnrl.graph.extract import extract
from gnnrl.params.load import load_params
from gnnrl.pruning.surgery import Surgeon
from gnnrl.rl.observation import to_tensors
from gnnrl.sealed import write_state
from gnnrl.search import build
from gnnrl.search.budgets import BudgetsEnv
from gnnrl.search.settings import SearchSettings

BUDGETS = (0.25, 0.4, 0.6)
MODES = {
    "calibrated": {"importance": "reconstruction", "prior": "reconstruction"},
    "weights": {"importance": "l1", "prior": "none"},
}
"""With the calibration pass, and from weights and graph alone."""

SAMPLES = 36
"""Plans of each mode and budget, besides the one that actions depart from."""

STD = 0.6
"""Of the actions, before the sigmoid."""

REWARD = {"kind": "jensen_shannon", "compensation": "gram"}


def inputs_of(data: str, network: str, zoo: Path = Path("zoo/artifacts")) -> build.Inputs:
    """Return a trained network of the zoo with its images."""
    checkpoint = Checkpoint.load(zoo / data / network / "final.safetensors", trust=True)
    recipe = load_params("pretrain", Path(f"zoo/{data}.yaml")).data
    splits = load_data(recipe, checkpoint.input_shape)
    dense = checkpoint.restore().eval()
    graph = extract(dense, torch.zeros(1, *checkpoint.input_shape))
    return build.Inputs(Surgeon(dense, graph), splits.reward, splits.train)


def env_of(
    inputs: build.Inputs, mode: str, calibrated: build.Calibrated, budgets: tuple[float, ...]
) -> BudgetsEnv:
    """Return the environment of a mode; calibrated: what the reward needs in both."""
    settings = SearchSettings(
        budget={"flops": budgets[0]}, budgets=budgets[1:], reward=REWARD, **MODES[mode]
    )
    env = build.make_env(settings, inputs, calibrated)
    assert isinstance(env, BudgetsEnv)
    return env


def calibration(inputs: build.Inputs) -> build.Calibrated:
    """Return what 512 images tell of the network."""
    settings = SearchSettings(calibration_images=512, reward=REWARD, **MODES["calibrated"])
    return build.calibrate(settings, inputs)


def tried(env: BudgetsEnv, generator: torch.Generator) -> tuple[list[Data], Tensor, Tensor]:
    """Return the observation of each budget, actions [B, M, A] and their rewards [B, M].

    The first action of a budget is one half everywhere.
    """
    seen, actions, rewards = [], [], []
    for start in range(env.starts):
        observation, _ = env.reset(seed=start)
        seen.append(observation)
        noise = STD * torch.randn(SAMPLES, env.space.size, generator=generator)
        drawn = torch.cat([torch.full((1, env.space.size), 0.5), noise.sigmoid()])
        plans = [env.spaces[start].decide(action.numpy()) for action in drawn]
        actions.append(drawn)
        rewards.append(torch.tensor([found.reward for found in env.evaluate(plans)]))
    return seen, torch.stack(actions), torch.stack(rewards).float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", help="digits or cifar10")
    parser.add_argument("--network", required=True, help="such as plain_3")
    given = parser.parse_args()
    inputs = inputs_of(given.data, given.network)
    found = calibration(inputs)
    generator = torch.Generator().manual_seed(0)
    samples = {}
    for mode in MODES:
        bare = build.Calibrated() if mode == "weights" else found
        env = env_of(inputs, mode, bare, BUDGETS)
        env.evaluate = build.make_evaluator(
            SearchSettings(reward=REWARD), inputs, found.reconstruction
        )
        seen, actions, rewards = tried(env, generator)
        samples[mode] = {
            "observations": [to_tensors(observation) for observation in seen],
            "actions": actions,
            "rewards": rewards,
        }
    write_state(Path("zoo/artifacts") / given.data / given.network / "samples.pt", samples)
    best = {mode: float((1 - s["rewards"].max(1).values / s["rewards"][:, 0]).mean())
            for mode, s in samples.items()}  # fmt: skip
    print(given.data, given.network, {mode: round(gain, 3) for mode, gain in best.items()})


if __name__ == "__main__":
    main()
