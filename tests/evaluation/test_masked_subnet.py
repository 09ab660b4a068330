"""Subnets at the dense network's widths give what the cut networks give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gnnrl.evaluation.masked_subnet import can_be_masked
from gnnrl.evaluation.one_shot import OneShot
from gnnrl.evaluation.rewards import RewardSettings
from gnnrl.graph.extract import extract
from gnnrl.graph.unit_mapping import kept_filters
from gnnrl.networks.build import build_network
from gnnrl.pruning.batch_norm import recalibrate
from gnnrl.pruning.compensation.gram import SOLVES
from gnnrl.pruning.compensation.moments import collect
from gnnrl.pruning.importance import l1
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import Surgeon
from gnnrl.search.spaces.channels import ChannelSpace

SHAPE = (3, 16, 16)
GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.rand(48, *SHAPE, generator=GENERATOR)
LABELS = torch.arange(48) % 10


def plain() -> nn.Module:
    """One with a depthwise convolution, a pooled map and biases."""
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 16, 1),
        nn.BatchNorm2d(16),
        nn.SiLU(),
        nn.MaxPool2d(4),
        nn.Flatten(),
        nn.Linear(256, 24),
        nn.ReLU(),
        nn.Linear(24, 10),
    )


class Case:
    """A network whose norms know the images, plans of half of its flops, moments."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        network = plain() if name == "plain" else build_network(name, 10, SHAPE)
        network.eval()
        recalibrate(network, [IMAGES])
        graph = extract(network, IMAGES[:1])
        self.surgeon = Surgeon(network, graph)
        self.moments = collect(self.surgeon.analysis, IMAGES, generator=GENERATOR)
        self.space = ChannelSpace(graph, l1(network, graph), 0.5)
        random = torch.Generator().manual_seed(1)
        self.plans = [self.space.sample(random) for _ in range(3)]

    def evaluator(self, masked: bool, compensation: str = "none", **settings: object) -> OneShot:
        solve = None
        if compensation != "none":
            solve = SOLVES[compensation](self.surgeon.graph, self.moments)
        how = RewardSettings(kind="jensen_shannon", **settings)
        found = OneShot(self.surgeon, IMAGES, LABELS, how, compensate=solve)
        if masked:
            found.run_masked()
        return found


@pytest.fixture(scope="module", params=["resnet20", "plain"])
def case(request) -> Case:
    return Case(request.param)


@pytest.mark.parametrize(
    "settings",
    [
        {"compensation": "gram"},
        {"compensation": "gram", "statistics_images": 16},
        {"statistics": "batch"},
        {"statistics": "kept"},
    ],
    ids=str,
)
def test_a_masked_network_gives_what_the_cut_one_gives(case, settings):
    cut, masked = (case.evaluator(masked, **settings) for masked in (False, True))
    assert masked.together > 1 == cut.together
    for plan, one, other in zip(case.plans, cut(case.plans), masked(case.plans), strict=True):
        assert other.reward == pytest.approx(one.reward, rel=0.01)
        assert (other.flops, other.parameters) == (one.flops, one.parameters)
        expected = cut.outputs(plan)
        torch.testing.assert_close(
            masked.outputs(plan), expected, rtol=0, atol=2e-3 * float(expected.std())
        )


def test_plans_that_are_given_together_are_scored_as_each_alone(case):
    masked = case.evaluator(True, "gram")
    together = masked(case.plans)
    assert [masked([plan])[0].reward for plan in reversed(case.plans)] == pytest.approx(
        [found.reward for found in reversed(together)], rel=1e-5
    )
    assert len({found.reward for found in together}) == len(together)


def test_a_plan_that_removes_more_than_channels_is_cut(case):
    layer = next(name for name, node in case.surgeon.graph.layers.items() if node.filters)
    sparse = PruningPlan(weight_sparsity={layer: 0.5})
    cut, masked = (case.evaluator(each)([sparse, *case.plans]) for each in (False, True))
    assert masked[0].reward == cut[0].reward
    assert [e.reward for e in masked] == pytest.approx([e.reward for e in cut], rel=0.01)


@pytest.mark.parametrize("settings", [{}, {"compensation": "mean_shift"}], ids=str)
def test_what_masks_do_not_suit_is_cut(settings):
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Conv2d(3, 8, 3), nn.GroupNorm(1, 8)
            self.last = nn.Linear(8, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.norm(self.first(x)).mean((2, 3)))

    whole = Normalised().eval() if not settings else None
    if whole is not None:
        assert not can_be_masked(Surgeon(whole, extract(whole, IMAGES[:1])))
    else:
        assert Case("resnet20").evaluator(True, **settings).together == 1


def test_an_evaluation_leaves_nothing_to_the_next_one(case):
    """A classifier that lost inputs gets another bias; the next plan may keep all its inputs."""
    graph = case.surgeon.graph
    keep = np.ones(graph.num_units, dtype=bool)
    keep[graph.groups[0].start] = False  # far from the classifier
    nearly_whole = PruningPlan(kept_filters(graph, keep))
    fresh = case.evaluator(False, "gram").evaluate(nearly_whole)
    used = case.evaluator(False, "gram")
    used(case.plans)
    assert used.evaluate(nearly_whole) == fresh
