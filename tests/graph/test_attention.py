"""Attention is cut exactly, in whatever code it is written."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torchvision.models.maxvit import MaxVit
from torchvision.models.swin_transformer import (
    PatchMergingV2,
    SwinTransformer,
    SwinTransformerBlockV2,
)
from torchvision.models.video.mvit import MSBlockConfig, MViT
from torchvision.models.video.swin_transformer import SwinTransformer3d
from torchvision.models.vision_transformer import VisionTransformer

from gnnrl.graph.cost import cost
from gnnrl.graph.extract import extract
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import prune
from tests.cutting import (
    assert_costs_are_counted,
    assert_cut_is_exact,
    assert_survives_saving,
    assert_trains,
    flops_counted,
    random_plan,
    randomise,
)
from tests.graph.transformers import GROUPS, HEADS, WIDTH, Tokens, Transformer


@pytest.mark.parametrize("how", GROUPS)
def test_heads_are_cut_exactly(how: str) -> None:
    network, image = randomise(Transformer(how)), torch.randn(2, 3, 8, 8)
    graph = extract(network, image)
    assert not graph.whole
    assert sorted(g.size for g in graph.groups) == sorted((*GROUPS[how], 24))
    cut = assert_cut_is_exact(network, image, 0.5, seed=1)
    assert_trains(cut.subnet, image)
    assert_survives_saving(cut, image)


@pytest.mark.parametrize("how", ["module", "separate", "index", "grouped", "bias", "chunk"])
def test_the_width_of_heads_is_cut_exactly(how: str) -> None:
    network, image = randomise(Transformer(how)), torch.randn(2, 3, 8, 8)
    sizes = [g.size for g in extract(network, image, attention="width").groups]
    assert sizes in ([6, 24], [6, 6, 24])  # one weight for all three; queries and keys, values
    assert_cut_is_exact(network, image, 0.5, seed=2, attention="width")


@pytest.mark.parametrize("how", ["module", "separate", "raw", "bias_added"])
def test_the_width_of_a_transformer_is_cut_where_that_is_asked_for(how: str) -> None:
    network, image = randomise(Transformer(how)), torch.randn(2, 3, 8, 8)
    usual = extract(network, image)
    wider = extract(network, image, embedding=True)
    assert sorted(g.size for g in wider.groups) == sorted([*(g.size for g in usual.groups), 24])
    assert_cut_is_exact(network, image, 0.5, seed=3, embedding=True)  # norms of what is left


def test_a_class_token_is_cut_with_the_width() -> None:
    network, image = randomise(Transformer("index", token=True)), torch.randn(2, 3, 8, 8)
    assert_cut_is_exact(network, image, 0.5, seed=1)
    graph = extract(network, image, embedding=True)
    plan = random_plan(graph, 0.5, seed=0)
    subnet = prune(network, graph, plan)
    assert subnet.token.shape[-1] == subnet.positions.shape[-1] == len(plan.kept["patches"])
    assert_costs_are_counted(graph, plan, subnet, image)
    assert_trains(subnet, image)


def test_keeping_all_heads_changes_nothing() -> None:
    network, image = randomise(Transformer("module")), torch.randn(2, 3, 8, 8)
    subnet = prune(network, extract(network, image), PruningPlan({}))
    with torch.no_grad():
        torch.testing.assert_close(subnet(image), network(image))
    dense = network.state_dict()
    assert all(torch.equal(value, dense[name]) for name, value in subnet.state_dict().items())


def test_costs_of_attention_are_those_that_pytorch_counts() -> None:
    network, image = Transformer("sdpa"), torch.zeros(1, 3, 8, 8)
    products = 2 * 16 * 16 * WIDTH
    graph = extract(network, image)
    assert sum(each * HEADS for n in graph.nodes for each, _ in n.products) == products
    assert cost(graph).flops == flops_counted(network, image)


def test_heads_of_width_one_cost_products_by_einsum_as_well() -> None:
    network, image = randomise(Transformer("einsum")), torch.randn(1, 3, 8, 8)
    graph = extract(network, image, attention="width")
    first_of_each = tuple(range(0, WIDTH, WIDTH // HEADS))
    plan = PruningPlan({f"attention.{name}": first_of_each for name in "qkv"})
    subnet = prune(network, graph, plan)
    assert subnet.attention.q.out_features == subnet.attention.v.out_features == HEADS
    assert_costs_are_counted(graph, plan, subnet, image)


def test_dropout_of_attention_acts_in_training_only() -> None:
    network, image = randomise(Transformer("module")), torch.randn(4, 3, 8, 8)
    network.attention.inner.dropout = 0.5
    subnet = prune(network, extract(network, image), PruningPlan({}))
    with torch.no_grad():
        assert torch.equal(subnet(image), subnet(image))
        subnet.train()
        assert not torch.equal(subnet(image), subnet(image))


def clips(**settings: bool) -> nn.Module:
    """Multiscale attention over clips of 4 frames, whose keys and queries are pooled."""
    kernels = {"kernel_q": [3, 3, 3], "kernel_kv": [3, 3, 3]}
    blocks = [
        MSBlockConfig(2, 16, 32, **kernels, stride_q=[1, 1, 1], stride_kv=[1, 2, 2]),
        MSBlockConfig(4, 32, 32, **kernels, stride_q=[1, 2, 2], stride_kv=[1, 1, 1]),
    ]
    return MViT((32, 32), 4, blocks, num_classes=5, **settings)


VISION: dict[str, Callable[[], nn.Module]] = {
    "vit": lambda: VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=5),
    "swin": lambda: SwinTransformer([4, 4], 16, [2, 2], [2, 4], [4, 4], num_classes=5),
    "swin_v2": lambda: SwinTransformer(
        [4, 4], 16, [2, 2], [2, 4], [4, 4], num_classes=5, block=SwinTransformerBlockV2,
        downsample_layer=PatchMergingV2,
    ),
    "swin3d": lambda: SwinTransformer3d(
        [2, 4, 4], 16, [2, 2], [2, 4], [4, 7, 7], num_classes=5
    ),
    "mvit": lambda: clips(
        residual_pool=False, residual_with_cls_embed=True, rel_pos_embed=False,
        proj_after_attn=False,
    ),
    "mvit_v2": lambda: clips(
        residual_pool=True, residual_with_cls_embed=False, rel_pos_embed=True,
        proj_after_attn=True,
    ),
    "maxvit": lambda: MaxVit((64, 64), 16, 4, [16, 32], [1, 1], 8, 0.1, num_classes=5),
    "encoder": lambda: Tokens(),
}  # fmt: skip
FAST = ("vit", "encoder")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in FAST else pytest.mark.slow) for n in VISION]
)
def test_known_transformers_are_cut_exactly(name: str) -> None:
    torch.manual_seed(0)
    network, side = randomise(VISION[name]()), 32 if name == "vit" else 64
    image = torch.randn(2, 3, side, side)
    if name in ("swin3d", "mvit", "mvit_v2"):
        image = torch.randn(2, 3, 4, 32, 32)
    if name == "encoder":
        image = torch.randint(0, 40, (2, 7))
    cut = assert_cut_is_exact(network, image, 0.5, seed=1)
    graph = cut.surgeon.analysis.graph
    assert not graph.whole
    if "swin" in name:  # heads go with their column of the table of position biases
        assert all(graph.parameters[p].channels for p in graph.parameters if "bias_table" in p)
    assert_trains(cut.subnet, image)
    assert_survives_saving(cut, image)
