"""Linear layers and attention's projections make up for heads and hidden units that are gone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformer

from gnnrl.graph.extract import extract
from gnnrl.graph.unit_mapping import kept_filters
from gnnrl.networks.build import build_network
from gnnrl.pruning.compensation.elimination import RIDGE
from gnnrl.pruning.compensation.gram import SOLVES, Solved
from gnnrl.pruning.compensation.linear_maps import readers
from gnnrl.pruning.compensation.moments import collect, reconstruction
from gnnrl.pruning.compensation.samples import used_places
from gnnrl.pruning.compensation.sequential import Refit, compensate
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import Surgeon
from gnnrl.runtime import generator
from tests.cutting import randomise
from tests.graph.transformers import Transformer

IMAGES = torch.randn(48, 3, 8, 8, generator=torch.Generator().manual_seed(0))
WAYS = ["module", "module_first", "separate", "index", "raw", "chunk", "grouped", "bmm"]
PROJECTION = {"module": "attention.inner.out_proj", "module_first": "attention.inner.out_proj"}


def surgeon_of(network: nn.Module, **settings: object) -> Surgeon:
    return Surgeon(network, extract(network, IMAGES[:1], **settings))


def half(surgeon: Surgeon, seed: int = 0) -> tuple[PruningPlan, np.ndarray]:
    """Of every group, half of the channels are removed."""
    draw, keep = np.random.default_rng(seed), np.ones(surgeon.graph.num_units, dtype=bool)
    for group in surgeon.graph.groups:
        keep[group.start + draw.permutation(group.size)[: group.size // 2]] = False
    return PruningPlan(kept_filters(surgeon.graph, keep)), keep


def read_and_given(surgeon: Surgeon, layer: str) -> tuple[Tensor, Tensor]:
    """What a linear layer of the dense network reads and gives, all tokens, in double precision."""
    seen, network = [], surgeon.analysis.traced.eval()
    module = network.get_submodule(layer)
    handle = module.register_forward_hook(lambda m, read, given: seen.append((read[0], given)))
    with torch.no_grad():
        network(IMAGES)
    handle.remove()
    return tuple(t.double().flatten(0, -2) for t in seen[0])


def compensated(surgeon: Surgeon, how: str, plan: PruningPlan) -> nn.Module:
    if how == "plain":
        return surgeon.cut(plan).eval()
    if how == "sequential":
        return compensate(surgeon, plan, IMAGES, generator(0, "test")).eval()
    return Solved(surgeon, how, IMAGES, generator(0, "test"))(plan).eval()


def distance(subnet: nn.Module, network: nn.Module) -> float:
    with torch.no_grad():
        return float((subnet(IMAGES) - network(IMAGES)).square().mean())


@pytest.mark.parametrize("how", WAYS)
def test_projections_are_the_ridge_regression_of_what_the_dense_layer_gave(how):
    network = randomise(Transformer(how))
    surgeon = surgeon_of(network)
    plan, keep = half(surgeon)
    subnet = compensated(surgeon, "gram", plan)
    for layer in (PROJECTION.get(how, "attention.out"), "mlp.2"):
        reader = next(r for r in readers(surgeon.analysis) if r.layer == layer)
        x, y = read_and_given(surgeon, layer)
        kept = np.flatnonzero(np.append(keep, True)[reader.units])
        assert 0 < len(kept) < x.shape[1]
        a = torch.cat([x[:, kept], torch.ones(len(x), 1)], 1)
        ridge = (len(x) * RIDGE * x.square().mean()).sqrt() * torch.eye(a.shape[1]).double()
        ridge[-1] = 0.0  # the constant is not penalised
        best = torch.linalg.lstsq(torch.cat([a, ridge]), torch.cat([y, 0 * y[: len(ridge)]]))
        found = subnet.get_submodule(layer)
        given = torch.cat([found.weight, found.bias[:, None]], 1).double()
        torch.testing.assert_close(given.t(), best.solution, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_a_solve_never_raises_the_error_and_a_shift_keeps_the_mean_of_what_a_layer_gives(seed):
    network = randomise(Transformer("index"), seed)
    surgeon = surgeon_of(network)
    plan, keep = half(surgeon, seed)
    for layer in ("attention.out", "mlp.2"):
        x, y = read_and_given(surgeon, layer)
        reader = next(r for r in readers(surgeon.analysis) if r.layer == layer)
        kept = np.flatnonzero(np.append(keep, True)[reader.units])
        errors = {}
        for how in ("plain", *SOLVES):
            found = compensated(surgeon, how, plan).get_submodule(layer).double()
            given = found(x[:, kept]).detach()
            errors[how] = float((given - y).square().mean())
            if how != "plain":
                torch.testing.assert_close(given.mean(0), y.mean(0), rtol=1e-4, atol=1e-4)
        assert errors["gram"] < errors["mean_shift"] < errors["plain"]


@pytest.mark.parametrize("how", ["module", "raw", "grouped"])
@pytest.mark.parametrize("settings", [{}, {"attention": "width"}, {"embedding": True}], ids=str)
def test_each_compensation_is_nearer_to_the_dense_network_than_the_one_before(how, settings):
    network = randomise(Transformer(how))
    surgeon = surgeon_of(network, **settings)
    plan, _ = half(surgeon)
    found = {w: distance(compensated(surgeon, w, plan), network) for w in ("plain", "sequential")}
    assert found["sequential"] < 0.5 * found["plain"]


def test_shortcuts_behind_dropout_are_part_of_what_is_fitted():
    network = randomise(build_network("vit_patch4", input_shape=(3, 8, 8)))
    ends = {
        r.layer.split("encoder_layer_")[-1]: r.other for r in readers(surgeon_of(network).analysis)
    }
    assert ends["0.self_attention.out_proj"] and ends["5.mlp.3"]
    assert not ends["0.mlp.0"]


def test_where_only_the_class_token_is_read_the_others_do_not_count():
    network = randomise(Transformer("index", token=True))
    surgeon = surgeon_of(network)
    used = used_places(surgeon.analysis.traced.eval(), readers(surgeon.analysis), IMAGES[:4])
    assert {name: places.tolist() for name, places in used.items()} == {
        "attention.out": [0], "mlp.0": [0], "mlp.2": [0],
    }  # fmt: skip


def test_importance_and_curves_are_those_of_whole_heads_and_hidden_units():
    network = randomise(Transformer("separate"))
    with torch.no_grad():
        network.attention.out.weight[:, 6:12] = 0.0  # what the second head gives is not used
        network.mlp[2].weight[:, 5] = 0.0
    surgeon = surgeon_of(network)
    calibration = collect(surgeon.analysis, IMAGES, generator=generator(0, "test"))
    scores, curves = reconstruction(network, surgeon.analysis, calibration)
    assert {name: len(score) for name, score in scores.items()} == {"attention.q": 4, "mlp.0": 24}
    assert int(scores["attention.q"].argmin()) == 1 and int(scores["mlp.0"].argmin()) == 5
    assert all(float(curve[1]) < 1e-6 * float(curve[-1]) for curve in curves.values())


@pytest.mark.slow
def test_a_swin_transformer_is_repaired():
    torch.manual_seed(0)
    network = randomise(SwinTransformer([2, 2], 16, [2, 2], [2, 4], [4, 4], num_classes=5))
    surgeon = surgeon_of(network)
    plan, _ = half(surgeon)
    ways = ("plain", *SOLVES, "sequential")
    found = {how: distance(compensated(surgeon, how, plan), network) for how in ways}
    assert found["gram"] < 0.5 * found["plain"]
    assert found["sequential"] < found["gram"]


PARTS = [{"layer1.1"}, {"layer1.0.bn1"}, {"layer2.1.conv2"}, {"layer1.0", "layer3.2.conv1"}]


@pytest.fixture(scope="module")
def resnet20() -> Surgeon:
    return surgeon_of(randomise(build_network("resnet20", input_shape=(3, 8, 8))))


@pytest.mark.parametrize("how", [*SOLVES, "sequential", "refit"])
@pytest.mark.parametrize("removed", PARTS, ids=lambda parts: "+".join(sorted(parts)))
def test_plans_that_remove_layers_and_channels_are_compensated(removed, how, resnet20):
    surgeon = resnet20
    graph = surgeon.without(removed).graph
    keep = np.ones(graph.num_units, dtype=bool)
    for group in graph.groups:
        keep[group.start : group.start + group.size // 4] = False
    plan = PruningPlan(kept_filters(graph, keep), removed_layers=frozenset(removed))
    if how == "refit":
        subnet = Refit(surgeon, IMAGES, generator(0, "test"))(plan)
    else:
        subnet = compensated(surgeon, how, plan)
    assert sum(p.numel() for p in subnet.parameters()) == sum(
        p.numel() for p in surgeon.cut(plan).parameters()
    )
    assert torch.isfinite(subnet.eval()(IMAGES)).all()
