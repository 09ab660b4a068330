"""A search on a transformer: whole heads and hidden units, by their reconstruction errors."""

from __future__ import annotations

import pytest
import torch

from gnnrl.agents.registry import build_agent
from gnnrl.data.images import Images
from gnnrl.data.transform import Transform
from gnnrl.graph.extract import extract
from gnnrl.pruning.surgery import Surgeon
from gnnrl.search.build import Inputs, make_env
from gnnrl.search.loop import search
from gnnrl.search.settings import SearchSettings
from tests.cutting import flops_counted, randomise
from tests.graph.transformers import Transformer

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = Images(
    torch.randint(0, 256, (40, 3, 8, 8), generator=GENERATOR, dtype=torch.uint8),
    torch.randint(0, 5, (40,), generator=GENERATOR),
    Transform(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
)


@pytest.mark.parametrize("compensation", ["mean_shift", "gram"])
@pytest.mark.parametrize("agent", ["solver", "evopress", "ppo"])
def test_agents_find_plans_within_the_budget_that_are_no_worse_than_uniform(agent, compensation):
    network = randomise(Transformer("module"))
    surgeon = Surgeon(network, extract(network, torch.zeros(1, 3, 8, 8)))
    settings = SearchSettings(
        agent=agent,
        budget={"flops": 0.6},
        importance="reconstruction",
        prior="reconstruction",
        calibration_images=32,
        reward={"kind": "jensen_shannon", "compensation": compensation},
    )
    env = make_env(settings, Inputs(surgeon, IMAGES, IMAGES))
    made = build_agent(agent, env, seed=0, **settings.agent_parameters())
    found = search(env, made, evaluations=6, batch=4, seed=0)
    subnet, image = surgeon.cut(found.plan), torch.zeros(1, 3, 8, 8)
    dense = surgeon.analysis.traced  # PyTorch does not count its own fast path of attention
    assert flops_counted(subnet, image) <= 0.6 * flops_counted(dense, image)
    assert len(found.plan.kept["mlp.0"]) < 24
    (uniform,) = env.evaluate([env.space.uniform()])
    assert found.reward >= uniform.reward
