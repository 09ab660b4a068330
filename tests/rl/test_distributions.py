"""Distributions against integrals, PyTorch's own and histograms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from gnnrl.rl.distributions import (
    Binary,
    MaskedCategorical,
    SquashedGaussian,
    distribution,
    truncated_normal,
)
from gnnrl.rl.policy import PolicyOutput


def output(params, owner=None, mask=None):
    owner = torch.zeros(len(params), dtype=torch.long) if owner is None else torch.tensor(owner)
    mask = torch.ones(len(params), dtype=torch.bool) if mask is None else torch.tensor(mask)
    return PolicyOutput(params, owner, mask, torch.zeros(int(owner.max()) + 1))


@pytest.mark.parametrize("mean, spread", [(0.0, 0.0), (1.5, 0.5), (-2.0, -1.0)])
def test_the_squashed_density_integrates_to_one_and_gives_the_entropy(mean, spread):
    how = SquashedGaussian(initial_std=0.6)
    seen = output(torch.tensor([[mean, spread]], dtype=torch.float64))

    def log_density(action):
        return how.log_prob(seen, torch.logit(torch.tensor([action], dtype=torch.float64))).item()

    total, _ = integrate.quad(lambda a: np.exp(log_density(a)), 0, 1)
    entropy, _ = integrate.quad(lambda a: -np.exp(log_density(a)) * log_density(a), 0, 1)
    assert total == pytest.approx(1, abs=1e-5)
    how.nodes, how.weights = how.nodes.double(), how.weights.double()
    assert how.entropy(seen).item() == pytest.approx(entropy, abs=1e-3)


def test_squashed_samples_follow_the_density():
    how, generator = SquashedGaussian(0.6), torch.Generator().manual_seed(0)
    seen = output(torch.tensor([[0.8, 0.3]]).repeat(4000, 1))
    actions = how.action(how.sample(seen, generator))
    normal = how._normal(seen)
    logits = np.log(actions / (1 - actions))
    spread = normal.loc[0].item(), normal.scale[0].item()
    assert stats.kstest(logits, "norm", spread).pvalue > 0.01


@pytest.mark.parametrize("kind", ["continuous", "binary"])
def test_the_mean_starts_at_the_level(kind):
    how = distribution(kind, initial_std=1e-3)
    params = how.bias(0.7).unsqueeze(0).repeat(5000, 1)
    drawn = how.sample(output(params), torch.Generator().manual_seed(0))
    assert how.action(drawn).mean() == pytest.approx(0.7, abs=0.02)


def test_bernoulli_agrees_with_pytorch():
    logits = torch.tensor([[0.3], [-1.0], [2.0]])
    raw = torch.tensor([1.0, 0.0, 1.0])
    theirs = torch.distributions.Bernoulli(logits=logits[:, 0])
    torch.testing.assert_close(Binary().log_prob(output(logits), raw), theirs.log_prob(raw))
    torch.testing.assert_close(Binary().entropy(output(logits)), theirs.entropy())


def test_a_forbidden_binary_decision_is_never_taken_and_costs_nothing():
    seen = output(torch.full((500, 1), 5.0), mask=[False] * 500)
    raw = Binary().sample(seen, torch.Generator().manual_seed(0))
    assert not raw.any() and not Binary().mode(seen).any()
    assert Binary().log_prob(seen, raw).abs().max() == 0


def test_categorical_agrees_with_pytorch_on_graphs_of_different_sizes():
    params = torch.tensor([[0.3], [-1.0], [2.0], [0.7], [0.1]])
    seen = output(params, owner=[0, 0, 1, 1, 1])
    theirs = [torch.distributions.Categorical(logits=params[a:b, 0]) for a, b in [(0, 2), (2, 5)]]
    raw = torch.tensor([1, 2])
    expected = torch.stack([t.log_prob(r) for t, r in zip(theirs, raw, strict=True)])
    torch.testing.assert_close(MaskedCategorical().log_prob(seen, raw), expected)
    entropies = torch.stack([t.entropy() for t in theirs])
    torch.testing.assert_close(MaskedCategorical().entropy(seen), entropies)


def test_a_forbidden_node_is_never_chosen():
    params = torch.tensor([[9.0], [0.0], [0.5]]).repeat(300, 1)
    seen = output(params, np.arange(300).repeat(3).tolist(), [False, True, True] * 300)
    drawn = MaskedCategorical().sample(seen, torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == {1, 2} and set(MaskedCategorical().mode(seen).tolist()) == {2}


def test_truncated_noise_follows_the_truncated_normal():
    mean, std = torch.full((4000,), 0.9), 0.3
    drawn = truncated_normal(mean, std, torch.Generator().manual_seed(0)).numpy()
    ends = (0 - 0.9) / std, (1 - 0.9) / std
    assert stats.kstest(drawn, stats.truncnorm(*ends, loc=0.9, scale=std).cdf).pvalue > 0.01


def test_a_spread_of_nothing_is_refused():
    with pytest.raises(ValueError, match="initial_std 0"):
        SquashedGaussian(0)
