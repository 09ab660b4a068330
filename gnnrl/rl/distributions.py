"""Distributions of actions: how the parameters of T decisions become actions and densities."""

# T: decisions of all observations   B: observations   W: most decisions of one observation

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gnnrl.errors import UserError
from gnnrl.rl.observation import ActionKind
from gnnrl.rl.policy import Outlook

SPREAD = 2.0  # the learned spread stays within exp(+-SPREAD) of the initial one
FORBIDDEN = -1e9  # a logit which no other can come near


class Distribution(Protocol):
    """How raw values are drawn, what their density is, and what they mean as actions.

    `raw` has one entry per choice: each decision (continuous, binary) or each observation
    (categorical). log_prob and entropy have the same shape.
    """

    def bias(self, level: float) -> Tensor:
        """Return the parameters [P] of a decision whose mean is `level`."""

    def sample(self, outlook: Outlook, generator: torch.Generator) -> Tensor:
        """Draw raw values."""

    def mode(self, outlook: Outlook) -> Tensor:
        """Return the most likely raw values."""

    def log_prob(self, outlook: Outlook, raw: Tensor) -> Tensor:
        """Return the log-density of the actions that `raw` stands for."""

    def entropy(self, outlook: Outlook) -> Tensor:
        """Return the entropy of each choice."""

    def expected(self, outlook: Outlook) -> Tensor:
        """Return the mean of each decision's action and of its square, [T, 2]."""

    def split(self, outlook: Outlook, values: Tensor) -> list[Tensor]:
        """Return the entries of each observation."""

    def owner(self, outlook: Outlook) -> Tensor:
        """Return the observation of each choice."""

    def action(self, raw: Tensor) -> np.ndarray | int:
        """Return the action that the raw values of one observation stand for."""


class _PerDecision:
    """One choice per decision."""

    def split(self, outlook: Outlook, values: Tensor) -> list[Tensor]:
        return list(values.split(outlook.sizes))

    def owner(self, outlook: Outlook) -> Tensor:
        return outlook.owner


class SquashedGaussian(_PerDecision):
    """Continuous in [0, 1]: the sigmoid of a Gaussian with learned mean and spread.

    raw: the Gaussian's value u; the action is a = sigmoid(u), and
    log p(a) = log N(u; mean, std) - log a(1 - a).
    """

    def __init__(self, initial_std: float) -> None:
        if initial_std <= 0:
            raise ValueError(f"initial_std {initial_std}: expected more than 0")
        self.initial_std = initial_std
        nodes, weights = np.polynomial.hermite_e.hermegauss(9)
        self.nodes = torch.tensor(nodes, dtype=torch.float32)
        self.weights = torch.tensor(weights / weights.sum(), dtype=torch.float32)

    def bias(self, level: float) -> Tensor:
        level = min(max(level, 1e-3), 1 - 1e-3)
        return torch.tensor([math.log(level / (1 - level)), 0.0])

    def _moments(self, outlook: Outlook) -> tuple[Tensor, Tensor]:
        mean, spread = outlook.params.unbind(1)
        return mean, SPREAD * torch.tanh(spread / SPREAD) + math.log(self.initial_std)

    def sample(self, outlook: Outlook, generator: torch.Generator) -> Tensor:
        mean, log_std = self._moments(outlook)
        return mean + log_std.exp() * torch.randn(mean.shape, generator=generator)

    def mode(self, outlook: Outlook) -> Tensor:
        return outlook.params[:, 0]

    def log_prob(self, outlook: Outlook, raw: Tensor) -> Tensor:
        mean, log_std = self._moments(outlook)
        normal = -0.5 * ((raw - mean) / log_std.exp()) ** 2 - log_std - 0.5 * math.log(2 * math.pi)
        return normal + F.softplus(raw) + F.softplus(-raw)

    def entropy(self, outlook: Outlook) -> Tensor:
        """Entropy of the action: the Gaussian's plus E[log a(1 - a)], by quadrature."""
        mean, log_std = self._moments(outlook)
        u = mean.unsqueeze(1) + log_std.exp().unsqueeze(1) * self.nodes  # [T, nodes]
        squashing = -(F.softplus(u) + F.softplus(-u)) @ self.weights
        return 0.5 * math.log(2 * math.pi * math.e) + log_std + squashing

    def expected(self, outlook: Outlook) -> Tensor:
        mean, log_std = self._moments(outlook)
        a = torch.sigmoid(mean.unsqueeze(1) + log_std.exp().unsqueeze(1) * self.nodes)
        return torch.stack([a @ self.weights, a.square() @ self.weights], dim=1)

    def action(self, raw: Tensor) -> np.ndarray:
        return torch.sigmoid(raw).numpy()


class Bernoulli(_PerDecision):
    """Binary: each decision by itself; raw is 0 or 1, and 0 where the mask forbids."""

    def bias(self, level: float) -> Tensor:
        level = min(max(level, 1e-3), 1 - 1e-3)
        return torch.tensor([math.log(level / (1 - level))])

    def _logits(self, outlook: Outlook) -> Tensor:
        return outlook.params[:, 0].masked_fill(~outlook.mask, FORBIDDEN)

    def sample(self, outlook: Outlook, generator: torch.Generator) -> Tensor:
        chance = torch.sigmoid(self._logits(outlook))
        return (torch.rand(chance.shape, generator=generator) < chance).float()

    def mode(self, outlook: Outlook) -> Tensor:
        return (self._logits(outlook) >= 0).float()

    def log_prob(self, outlook: Outlook, raw: Tensor) -> Tensor:
        return -F.binary_cross_entropy_with_logits(self._logits(outlook), raw, reduction="none")

    def entropy(self, outlook: Outlook) -> Tensor:
        logits = self._logits(outlook)
        chance = torch.sigmoid(logits)
        return F.binary_cross_entropy_with_logits(logits, chance, reduction="none")

    def expected(self, outlook: Outlook) -> Tensor:
        chance = torch.sigmoid(self._logits(outlook))
        return torch.stack([chance, chance], dim=1)

    def action(self, raw: Tensor) -> np.ndarray:
        return raw.bool().numpy()


class MaskedCategorical:
    """Categorical: one decision node of each observation; raw is its place among them."""

    def bias(self, level: float) -> Tensor:
        return torch.zeros(1)

    def _log_chances(self, outlook: Outlook) -> Tensor:
        """Return log-probabilities [B, W]; FORBIDDEN where there is no such decision."""
        sizes = torch.bincount(outlook.owner, minlength=len(outlook.values))
        column = torch.arange(len(outlook.owner)) - (sizes.cumsum(0) - sizes)[outlook.owner]
        logits = outlook.params[:, 0].masked_fill(~outlook.mask, FORBIDDEN)
        dense = logits.new_full((len(sizes), int(sizes.max())), FORBIDDEN)
        return dense.index_put((outlook.owner, column), logits).log_softmax(1)

    def sample(self, outlook: Outlook, generator: torch.Generator) -> Tensor:
        chances = self._log_chances(outlook).exp()
        return torch.multinomial(chances, 1, generator=generator).squeeze(1)

    def mode(self, outlook: Outlook) -> Tensor:
        return self._log_chances(outlook).argmax(1)

    def log_prob(self, outlook: Outlook, raw: Tensor) -> Tensor:
        return self._log_chances(outlook).gather(1, raw.unsqueeze(1)).squeeze(1)

    def entropy(self, outlook: Outlook) -> Tensor:
        logs = self._log_chances(outlook)
        return -(logs.exp() * logs).sum(1)

    def expected(self, outlook: Outlook) -> Tensor:
        column = torch.cat([torch.arange(size) for size in outlook.sizes])
        chances = self._log_chances(outlook).exp()[outlook.owner, column]
        return torch.stack([chances, chances], dim=1)

    def split(self, outlook: Outlook, values: Tensor) -> list[Tensor]:
        return list(values.split(1))

    def owner(self, outlook: Outlook) -> Tensor:
        return torch.arange(len(outlook.values))

    def action(self, raw: Tensor) -> int:
        return int(raw.item())


def distribution(kind: ActionKind, initial_std: float) -> Distribution:
    """Return the distribution of the actions of this kind.

    A subset is no set of choices by themselves: see `gnnrl.rl.subsets`.
    """
    if kind == "subset":
        raise UserError("this agent cannot choose a number of decisions; take reinforce")
    if kind == "continuous":
        return SquashedGaussian(initial_std)
    return Bernoulli() if kind == "binary" else MaskedCategorical()


def truncated_normal(mean: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """Draw from normals around `mean` restricted to [0, 1], by the inverse of their distribution.

    Unlike clipping it puts no lump at the ends.
    """
    low, high = (torch.special.ndtr((end - mean.double()) / std) for end in (0.0, 1.0))
    chance = low + (high - low) * torch.rand(mean.shape, generator=generator, dtype=torch.float64)
    return (mean + std * torch.special.ndtri(chance)).clamp(0, 1).to(mean.dtype)
