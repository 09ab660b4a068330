"""Learn one policy from the plans that were tried on the networks of the zoo.

    python -m zoo.learn

For each network and mode, a separable model of the reward says what every decision is worth at
every budget (`gnnrl.agents.credit` does the same within a search).  The policy's mean action
maximises what these models expect.  A plan's gain is how far the logarithm of its divergence is
below that of the action one half: the allocation, or equal keep ratios.
Writes gnnrl/agents/pretrained.safetensors.
"""

# B: budgets   M: actions tried   A: decisions of a network   T: decisions of all observations

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch_geometric.data import Data

from gnnrl.agents.credit import PENALTIES
from gnnrl.agents.pretrained import write_pretrained
from gnnrl.agents.ridge import ridge
from gnnrl.rl.distributions import SquashedGaussian
from gnnrl.rl.observation import ObservationSpec, collate
from gnnrl.rl.policy import Policy
from gnnrl.rl.settings import EncoderSettings
from gnnrl.sealed import read_state
from gnnrl.search.observations.channels import FEATURES
from zoo.networks import family

ENCODER = {"hidden": 32, "layers": 2}
STEPS, LEARNING_RATE, WEIGHT_DECAY = 150, 5e-3, 1e-3
CAUTION = 2.0
"""Weight of the squared distance from the action one half: what is seldom tried is trusted less."""

WEIGHT = {"calibrated": 3.0, "weights": 1.0}
"""Of the modes; around the allocation there is less to gain."""


@dataclass(frozen=True)
class Tried:
    """What was tried on one network in one mode: an observation for each budget, actions
    [B, M, A], rewards [B, M]."""

    data: str
    network: str
    mode: str
    observations: list[Data]
    actions: Tensor
    rewards: Tensor

    @property
    def family(self) -> str:
        """The network's family."""
        return family(self.network)

    @cached_property
    def worth(self) -> Tensor:
        """Coefficients [B, A, 2] of what an action a is worth: of a - 1/2 and of its square."""
        divergence = (-self.rewards).clamp(min=1e-6)
        gains = (divergence[:, :1] / divergence).log()
        off = self.actions - 0.5  # [B, M, A]
        budget = torch.linspace(-1.0, 1.0, len(off)).view(-1, 1, 1)
        features = torch.cat([off, off.square(), budget * off], dim=2)  # [B, M, 3A]
        # the level of a budget's gains is taken out: it says nothing of single decisions
        features = (features - features.mean(1, keepdim=True)).flatten(0, 1).double()
        targets = (gains - gains.mean(1, keepdim=True)).flatten().double()
        scale = features.std(0) + 1e-9
        slopes, _, _ = ridge(features / scale, targets, torch.ones_like(targets), PENALTIES)
        first, second, turn = (slopes / scale).float().view(3, -1)
        linear = first + budget.squeeze(2) * turn
        return torch.stack([linear, second.expand_as(linear)], dim=2)


def load(data: str = "digits", zoo: Path = Path("zoo/artifacts")) -> list[Tried]:
    """Return what was tried on all networks of the zoo that were trained on these images."""
    found = []
    for path in sorted((zoo / data).glob("*/samples.pt")):
        network = path.parent.name
        for mode, s in read_state(path).items():
            seen = [Data(**fields) for fields in s["observations"]]
            found.append(Tried(data, network, mode, seen, s["actions"], s["rewards"]))
    return found


def value(actions: Tensor, worth: Tensor, caution: float = CAUTION) -> Tensor:
    """Return what actions [T] are worth, less the caution; worth [T, 2]."""
    off = actions - 0.5
    return worth[:, 0] * off + (worth[:, 1] - caution) * off.square()


def learn(
    tried: Sequence[Tried], seed: int = 0, caution: float = CAUTION, **encoder: object
) -> Policy:
    """Return the policy that these networks teach; encoder: settings that differ from ENCODER."""
    torch.manual_seed(seed)
    seen = [observation for t in tried for observation in t.observations]
    spec = ObservationSpec.of(seen[0], "continuous")
    bias = SquashedGaussian(1.0).bias(0.5)
    policy = Policy(spec, EncoderSettings(**{**ENCODER, **encoder}), bias)
    worth = torch.cat([t.worth.flatten(0, 1) for t in tried])
    shares = [
        torch.full(t.worth.shape[:2], WEIGHT[t.mode]) / t.worth[..., 0].numel() for t in tried
    ]
    weight = torch.cat([share.flatten() for share in shares])
    batch = collate(seen)
    place = torch.arange(len(seen))
    optimizer = torch.optim.AdamW(policy.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        output = policy.output(batch, place)
        actions = output.params[:, 0].sigmoid()
        loss = -(weight * value(actions, worth, caution)).sum() / weight.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
    return policy.eval()


Decide = Callable[[Data], Tensor]


def decides(policy: Policy) -> Decide:
    """Return a policy as a function from an observation to its mean action [A]."""

    @torch.no_grad()
    def decide(observation: Data) -> Tensor:
        return policy([observation]).params[:, 0].sigmoid()

    return decide


def tabular(tried: Sequence[Tried], seed: int = 0) -> Decide:
    """Return gradient boosting on the features of the decided nodes alone, without the graph."""
    from sklearn.ensemble import GradientBoostingRegressor

    grid = torch.linspace(0.1, 0.9, 33)
    rows, targets, weights = [], [], []
    for t in tried:
        for observation, worth in zip(t.observations, t.worth, strict=True):
            rows.append(decided_features(observation))
            every = torch.stack([value(torch.full((len(worth),), float(a)), worth) for a in grid])
            targets.append(grid[every.argmax(0)])
            weights.append(torch.full((len(worth),), WEIGHT[t.mode] / len(worth)))
    model = GradientBoostingRegressor(
        n_estimators=150, max_depth=3, learning_rate=0.05, subsample=0.5, min_samples_leaf=20,
        random_state=seed,
    )  # fmt: skip
    model.fit(torch.cat(rows).numpy(), torch.cat(targets).numpy(), torch.cat(weights).numpy())

    def decide(observation: Data) -> Tensor:
        found = model.predict(decided_features(observation).numpy())
        return torch.from_numpy(found).float().clamp(0.02, 0.98)

    return decide


def decided_features(observation: Data) -> Tensor:
    """Return the features [A, F] of the decided nodes, with the mean and spread of channels'."""
    nodes = len(observation.x)
    index, scores = observation.channel_index, observation.channel_x[:, :-1]
    count = torch.bincount(index, minlength=nodes).clamp(min=1).unsqueeze(1)
    empty = torch.zeros(nodes, scores.shape[1])
    mean = empty.index_add(0, index, scores) / count
    square = empty.index_add(0, index, scores.square()) / count
    spread = (square - mean.square()).clamp(min=0).sqrt()
    every = torch.cat([observation.x, mean, spread], dim=1)
    return every[observation.decision_index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gnnrl/agents/pretrained.safetensors"))
    parser.add_argument("--data", default="digits", help="that the networks were trained on")
    given = parser.parse_args()
    tried = load(given.data)
    write_pretrained(learn(tried), given.out, space="channels", features=FEATURES)
    print(f"learned from {len({t.network for t in tried})} networks on {given.data} -> {given.out}")


if __name__ == "__main__":
    main()
