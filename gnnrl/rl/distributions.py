"""Distributions of actions: how the parameters of T decisions become actions and densities.

`raw` are the values that are drawn, before they are read as actions. They, their log-densities and
entropies have one entry per choice: per decision (continuous, binary) or per observation
(categorical).
"""

# T: decisions of all observations   B: observations   W: most decisions of one observation

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Normal
from torch.nn import functional as F
from torch_geometric.utils import to_dense_batch

from gnnrl.errors import UserError
from gnnrl.rl.observation import ActionKind
from gnnrl.rl.policy import PolicyOutput

SPREAD = 2.0  # the learned spread stays within exp(+-SPREAD) of the initial one
FORBIDDEN = -1e9  # a logit whose probability is zero


class _PerDecision:
    """One choice per decision."""

    def split(self, output: PolicyOutput, values: Tensor) -> list[Tensor]:
        """Split values [T] by observation."""
        return list(values.split(output.sizes))

    def owner(self, output: PolicyOutput) -> Tensor:
        """Return the observation of each decision, [T]."""
        return output.owner


class SquashedGaussian(_PerDecision):
    """Continuous in [0, 1]: the sigmoid of a Gaussian with learned mean and spread.

    raw: the Gaussian's value u; the action is a = sigmoid(u), and
    log p(a) = log N(u; mean, std) - log a(1 - a).  Expectations are by Gauss-Hermite quadrature.
    """

    def __init__(self, initial_std: float) -> None:
        if initial_std <= 0:
            raise ValueError(f"initial_std {initial_std}: expected more than 0")
        self.initial_std = initial_std
        nodes, weights = np.polynomial.hermite_e.hermegauss(9)
        self.nodes = torch.tensor(nodes, dtype=torch.float32)
        self.weights = torch.tensor(weights / weights.sum(), dtype=torch.float32)

    def bias(self, level: float) -> Tensor:
        """Return mean and spread [2] of a decision around `level`, in the unit of u."""
        return torch.stack([_logit(level), torch.zeros(())])

    def _normal(self, output: PolicyOutput) -> Normal:
        """Return the distribution of u, [T]."""
        mean, spread = output.params.unbind(1)
        log_std = SPREAD * torch.tanh(spread / SPREAD) + math.log(self.initial_std)
        return Normal(mean, log_std.exp(), validate_args=False)

    def _at_nodes(self, output: PolicyOutput) -> Tensor:
        """Return the values of u at the nodes of the quadrature, [T, nodes]."""
        normal = self._normal(output)
        return normal.loc.unsqueeze(1) + normal.scale.unsqueeze(1) * self.nodes

    def sample(self, output: PolicyOutput, generator: torch.Generator) -> Tensor:
        """Draw u, [T]."""
        normal = self._normal(output)
        return normal.loc + normal.scale * torch.randn(normal.loc.shape, generator=generator)

    def mode(self, output: PolicyOutput) -> Tensor:
        """Return the mean of u, [T]."""
        return output.params[:, 0]

    def log_prob(self, output: PolicyOutput, raw: Tensor) -> Tensor:
        """Return the log-density of the actions sigmoid(raw), [T]."""
        return self._normal(output).log_prob(raw) + F.softplus(raw) + F.softplus(-raw)

    def entropy(self, output: PolicyOutput) -> Tensor:
        """Return the entropy of the action, [T]: the Gaussian's plus E[log a(1 - a)]."""
        u = self._at_nodes(output)
        return self._normal(output).entropy() - (F.softplus(u) + F.softplus(-u)) @ self.weights

    def expected(self, output: PolicyOutput) -> Tensor:
        """Return the mean of each action and of its square, [T, 2]."""
        a = torch.sigmoid(self._at_nodes(output))
        return torch.stack([a @ self.weights, a.square() @ self.weights], dim=1)

    def action(self, raw: Tensor) -> np.ndarray:
        """Return the actions of one observation, float [A] in (0, 1)."""
        return torch.sigmoid(raw).numpy()


class Binary(_PerDecision):
    """Binary: each decision by itself; raw is 0 or 1, and 0 where the mask forbids."""

    def bias(self, level: float) -> Tensor:
        """Return the logit [1] of a decision that is True with probability `level`."""
        return _logit(level).unsqueeze(0)

    def _bernoulli(self, output: PolicyOutput) -> Bernoulli:
        return Bernoulli(logits=_masked(output), validate_args=False)

    def sample(self, output: PolicyOutput, generator: torch.Generator) -> Tensor:
        """Draw 0 or 1 for every decision, float [T]."""
        probs = self._bernoulli(output).probs
        return (torch.rand(probs.shape, generator=generator) < probs).float()

    def mode(self, output: PolicyOutput) -> Tensor:
        """Return 1 where the probability is at least one half, float [T]."""
        return (_masked(output) >= 0).float()

    def log_prob(self, output: PolicyOutput, raw: Tensor) -> Tensor:
        """Return the log-probability of every decision, [T]."""
        return self._bernoulli(output).log_prob(raw)

    def entropy(self, output: PolicyOutput) -> Tensor:
        """Return the entropy of every decision in nats, [T]."""
        return self._bernoulli(output).entropy()

    def expected(self, output: PolicyOutput) -> Tensor:
        """Return the mean of each decision and of its square, which are equal, [T, 2]."""
        return self._bernoulli(output).probs.unsqueeze(1).expand(-1, 2)

    def action(self, raw: Tensor) -> np.ndarray:
        """Return the decisions on one observation, bool [A]."""
        return raw.bool().numpy()


class MaskedCategorical:
    """Categorical: one decision node of each observation; raw is its index among them."""

    def bias(self, level: float) -> Tensor:
        """Return the logit [1] that all nodes share at first; `level` does not matter."""
        return torch.zeros(1)

    def _categorical(self, output: PolicyOutput) -> Categorical:
        """Return one distribution per observation, over W nodes; beyond its own, FORBIDDEN."""
        dense, _ = to_dense_batch(
            _masked(output), output.owner, FORBIDDEN, batch_size=len(output.values)
        )
        return Categorical(logits=dense, validate_args=False)

    def sample(self, output: PolicyOutput, generator: torch.Generator) -> Tensor:
        """Draw a node of each observation, int [B]."""
        probs = self._categorical(output).probs
        return torch.multinomial(probs, 1, generator=generator).squeeze(1)

    def mode(self, output: PolicyOutput) -> Tensor:
        """Return the most likely node of each observation, int [B]."""
        return self._categorical(output).logits.argmax(1)

    def log_prob(self, output: PolicyOutput, raw: Tensor) -> Tensor:
        """Return the log-probability of the node chosen in each observation, [B]."""
        return self._categorical(output).log_prob(raw)

    def entropy(self, output: PolicyOutput) -> Tensor:
        """Return the entropy of the choice in each observation in nats, [B]."""
        return self._categorical(output).entropy()

    def expected(self, output: PolicyOutput) -> Tensor:
        """Return the probability of every node, twice, [T, 2]."""
        probs = self._categorical(output).probs
        own = [row[:size] for row, size in zip(probs, output.sizes, strict=True)]
        return torch.cat(own).unsqueeze(1).expand(-1, 2)

    def split(self, output: PolicyOutput, values: Tensor) -> list[Tensor]:
        """Split values [B] by observation."""
        return list(values.split(1))

    def owner(self, output: PolicyOutput) -> Tensor:
        """Return the observation of each choice, [B]."""
        return torch.arange(len(output.values))

    def action(self, raw: Tensor) -> int:
        """Return the index of the chosen node."""
        return int(raw.item())


def _logit(level: float) -> Tensor:
    return torch.logit(torch.tensor(level), eps=1e-3)


def _masked(output: PolicyOutput) -> Tensor:
    """Return the logits of all decisions, [T]; FORBIDDEN where the mask forbids."""
    return output.params[:, 0].masked_fill(~output.mask, FORBIDDEN)


Distribution = SquashedGaussian | Binary | MaskedCategorical


def distribution(kind: ActionKind, initial_std: float) -> Distribution:
    """Return the distribution of the actions of this kind; `UserError` for a subset.

    The choices of a subset depend on each other: see `gnnrl.rl.subsets`.
    """
    if kind == "subset":
        raise UserError("this agent cannot choose a number of decisions; take reinforce")
    if kind == "continuous":
        return SquashedGaussian(initial_std)
    return Binary() if kind == "binary" else MaskedCategorical()


def truncated_normal(mean: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """Draw from normals around `mean`, truncated to [0, 1], by inverting their distribution.

    Unlike clipping, this has no point mass at the ends.  mean: any shape, which the result has.
    """
    low, high = (torch.special.ndtr((end - mean.double()) / std) for end in (0.0, 1.0))
    chance = low + (high - low) * torch.rand(mean.shape, generator=generator, dtype=torch.float64)
    return (mean + std * torch.special.ndtri(chance)).clamp(0, 1).to(mean.dtype)
