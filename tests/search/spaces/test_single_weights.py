"""Masks of single weights: as many as asked for, from any layers, and kept by training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gnnrl.agents.registry import build_agent
from gnnrl.data.images import Images
from gnnrl.data.transform import Transform
from gnnrl.errors import UserError
from gnnrl.evaluation.base import Evaluation
from gnnrl.graph.budget import Budget
from gnnrl.graph.cost import cost
from gnnrl.graph.extract import extract
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.networks.build import build_network
from gnnrl.pruning.criteria import OF_SINGLE_WEIGHTS
from gnnrl.pruning.importance import Importance
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.saliency import score
from gnnrl.pruning.sparsity import zero_masks
from gnnrl.pruning.surgery import prune
from gnnrl.pruning.weight_saliency import score_weights
from gnnrl.rl.observation import fault
from gnnrl.rl.subsets import as_mask, best
from gnnrl.search.env import PruningEnv
from gnnrl.search.loop import search
from gnnrl.search.spaces.single_weights import SingleWeightSpace
from gnnrl.training.loop import train
from gnnrl.training.recipe import TrainingRecipe

SHAPE = (1, 6, 6)


@pytest.fixture(scope="module")
def setting() -> tuple[nn.Module, ComputationalGraph]:
    torch.manual_seed(0)
    network = build_network("mlp_300_100", 4, SHAPE).eval()
    return network, extract(network, torch.zeros(1, *SHAPE))


def examples() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(8, *SHAPE), torch.arange(8) % 4


def space_by(criterion: str, setting, sparsity: float = 0.9) -> SingleWeightSpace:
    network, graph = setting
    scored = score_weights(criterion, network, graph, examples, network).importance
    return SingleWeightSpace(graph, scored, Budget(sparsity=sparsity))


def kept(space: SingleWeightSpace, plan: PruningPlan) -> dict[str, float]:
    parts = np.split(space.kept(plan), np.cumsum(space._sizes)[:-1])
    return {name: float(part.mean()) for name, part in zip(space.names, parts, strict=True)}


def ranked(space: SingleWeightSpace) -> PruningPlan:
    chosen = best(space.observation().score, space.choice)
    return space.plan(as_mask(chosen, space.size))


def test_the_thesiss_perceptron_has_266200_weights():
    network = build_network("mlp_300_100", 10, (1, 28, 28))
    assert sum(p.numel() for p in network.parameters()) == 266_200


def test_a_plan_keeps_as_many_weights_as_asked_for_and_training_keeps_the_others_zero(
    setting, tmp_path
):
    network, graph = setting
    space = space_by("magnitude", setting)
    assert fault(space.observation()) is None
    action = space.random(torch.Generator().manual_seed(2))
    plan = space.plan(action)
    plan.save(tmp_path / "plan.json")
    assert PruningPlan.load(tmp_path / "plan.json") == plan
    assert (space.kept(plan) == action).all() and space.used(plan) == pytest.approx(0.1, abs=1e-4)

    subnet = prune(network, graph, plan)
    weights = torch.cat([p.detach().flatten() for p in subnet.parameters()])
    assert torch.equal(weights != 0, torch.from_numpy(action))
    assert cost(graph, plan).parameters == int(action.sum()) == round(0.1 * space.size)
    pixels = torch.randint(0, 255, (16, *SHAPE), dtype=torch.uint8)
    images = Images(pixels, torch.arange(16) % 4, Transform((0.5,), (0.25,)))
    zeros = zero_masks(subnet, SHAPE, [plan.to_json()])
    train(subnet, images, TrainingRecipe(epochs=2, batch_size=8, augment=False), zeros=zeros)
    trained = torch.cat([p.detach().flatten() for p in subnet.parameters()])
    assert not trained[~torch.from_numpy(action)].any() and not torch.equal(trained, weights)


def test_raw_magnitude_spares_the_small_layers_that_local_magnitude_prunes_alike(setting):
    found = {c: kept(s, ranked(s)) for c in OF_SINGLE_WEIGHTS for s in [space_by(c, setting)]}
    raw, local = found["magnitude"], found["magnitude_local"]
    assert raw["fc1"] > 3 * raw["fc2"]  # initial weights are as large as the fan-in is small
    assert list(local.values()) == pytest.approx([0.1] * 3, abs=0.01)
    spread = found["magnitude_normalised"]
    assert max(spread.values()) - min(spread.values()) < 0.05
    assert all(share > 0 for shares in found.values() for share in shares.values())


def test_annealing_finds_better_masks_than_it_starts_from(setting):
    space = space_by("magnitude", setting)
    wanted = torch.rand(space.size, generator=torch.Generator().manual_seed(3)).numpy()

    def evaluate(plans):
        return [Evaluation(float(wanted[space.kept(plan)].mean())) for plan in plans]

    env = PruningEnv(space, evaluate)
    found = search(env, build_agent("annealing", env, seed=0), evaluations=60, batch=4, seed=0)
    rewards = [row["reward"] for row in found.evaluations]
    assert found.reward > np.mean(rewards[:4]) + 0.005


def test_layers_of_one_weight_are_left_whole():
    tied = nn.Sequential(nn.Flatten(), *(nn.Linear(36, 36) for _ in range(4)))
    tied[3].weight = tied[2].weight
    graph = extract(tied, torch.zeros(1, *SHAPE))
    scored = score_weights("magnitude", tied, graph, examples).importance
    assert {name: len(score) for name, score in scored.items()} == {"1": 36**2, "4": 36**2}
    space = SingleWeightSpace(graph, scored, Budget(sparsity=0.9))
    plan = ranked(space)
    subnet = prune(tied, graph, plan)
    left = sum(int((p != 0).sum()) for p in subnet.parameters())
    assert left == cost(graph, plan).parameters == space.keep + 36**2 + 4 * 36


def test_snip_takes_the_loss_of_training_as_it_does_for_filters():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 4))
    network.append(nn.Flatten())
    network[1].running_var.fill_(100.0)
    graph = extract(network, torch.zeros(1, *SHAPE))
    weights = score_weights("snip", network, graph, examples).importance
    filters = score("snip", network, graph, examples).importance
    (group,) = (g for g in filters if "0" in g.split("+"))
    torch.testing.assert_close(weights["0"].view(3, -1).double().sum(1), filters[group])


def test_what_does_not_fit_is_said(setting):
    network, graph = setting
    space = space_by("magnitude", setting)
    with pytest.raises(UserError, match=r"single_weights keeps a number of weights, it cannot"):
        SingleWeightSpace(graph, {"fc1": torch.ones(2)}, Budget(flops=0.5))
    with pytest.raises(UserError, match="leaves 1 of 41200 weights, but 3 layers need one each"):
        space_by("magnitude", setting, sparsity=1 - 1 / 41200)
    with pytest.raises(UserError, match="it chooses 0, expected exactly"):
        space.plan(np.zeros(space.size, dtype=bool))
    with pytest.raises(UserError, match="the importance l1 scores channels"):
        score_weights("l1", network, graph, examples)
    other = PruningPlan(masks={"fc1": ranked(space).masks["fc2"]})
    with pytest.raises(UserError, match="the mask of layer 'fc1' is not one of its 10800 weights"):
        cost(graph, other)
    with pytest.raises(UserError, match="is not one of its 10800 weights"):
        cost(graph, PruningPlan(masks={"fc1": "nonsense!"}))


def test_a_network_without_weights_of_its_own_in_any_layer_is_refused(setting):
    with pytest.raises(UserError, match="finds no weights: all layers are protected or share"):
        SingleWeightSpace(setting[1], Importance({}), Budget(sparsity=0.9))
