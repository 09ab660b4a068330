"""Code that a cut network cannot have as it stands is brought into a form that it can have."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnnrl.checkpoint import Checkpoint
from gnnrl.graph.extract import extract
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import prune
from gnnrl.tracing.check import tensors
from tests.cutting import (
    assert_cut_is_exact,
    assert_survives_saving,
    assert_trains,
    random_plan,
    randomise,
)
from tests.graph.bert import Bert, words
from tests.graph.made import Made

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Standardised(nn.Conv2d):
    """A convolution whose weights have mean 0 and variance 1 for each filter, times a gain."""

    def __init__(self, *arguments: int) -> None:
        super().__init__(*arguments)
        self.gain = nn.Parameter(torch.ones(self.out_channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        flat = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(
            flat, None, None, weight=(self.gain * 0.5).view(-1), training=True, momentum=0.0
        ).reshape_as(self.weight)
        return F.conv2d(x, weight, self.bias)


def standardised() -> nn.Module:
    return nn.Sequential(Standardised(3, 8, 3), nn.ReLU(), Standardised(8, 6, 3), nn.ReLU(),
                         nn.Flatten(), nn.Linear(96, 4))  # fmt: skip


class Noisy(Standardised):
    """The same; in training its weights are disturbed."""

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return x * torch.rand(()).item() if self.training else x


@pytest.mark.parametrize(("kind", "free"), [(Standardised, ["0"]), (Noisy, [])])
def test_of_a_protected_layer_that_can_be_read_the_filters_are_kept(kind, free) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), kind(8, 6, 3), nn.ReLU(), nn.Flatten(),
                            nn.Linear(96, 4))  # fmt: skip
    cut = assert_cut_is_exact(randomise(network), IMAGE, 0.5, 0, protect=["1"])
    assert [layer for group in cut.surgeon.graph.groups for layer in group.layers] == free
    assert list(cut.plan.kept) == free


class Products(nn.Module):
    """Layers whose weights stand the other way round, as those of GPT-2 do; `how` they are read."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.wide, self.deep = how, nn.Module(), nn.Module()
        for layer, (inputs, outputs) in ((self.wide, (3, 8)), (self.deep, (8, 5))):
            layer.weight = nn.Parameter(torch.zeros(inputs, outputs))
            layer.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).transpose(1, 2)
        return self._product(self._product(x, self.wide).relu(), self.deep).mean(1)

    def _product(self, x: Tensor, layer: nn.Module) -> Tensor:
        weight, bias = layer.weight, layer.bias
        if self.how == "addmm":
            return torch.addmm(bias, x.reshape(-1, x.shape[-1]), weight).view(*x.shape[:-1], -1)
        return (x @ weight if self.how == "@" else x.matmul(weight)) + bias


@pytest.mark.parametrize("how", ["addmm", "@", "matmul"])
def test_a_product_with_a_weight_is_a_linear_layer(how):
    cut = assert_cut_is_exact(randomise(Products(how)), IMAGE, 0.5, 0)
    assert list(cut.plan.kept) == ["wide"] and not cut.surgeon.graph.whole
    assert_trains(cut.subnet, IMAGE)
    assert_survives_saving(cut, IMAGE)


class JoinedBias(nn.Module):
    """Queries and values with a bias of their own, keys without; `how` the three are joined."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.patch = how, nn.Conv2d(3, 12, 2, 2)
        self.qkv, self.out = nn.Linear(12, 36, bias=how == "cleared"), nn.Linear(12, 4)
        self.q, self.v = nn.Parameter(torch.zeros(12)), nn.Parameter(torch.zeros(12))
        self.register_buffer("k", torch.zeros(12), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        if self.how == "cleared":
            bias = self.qkv.bias.clone()
            length = bias.numel() // 3
            bias[length : 2 * length].zero_()
        else:
            bias = torch.cat((self.q, self.k, self.v))
        made = F.linear(x, self.qkv.weight, bias).view(*x.shape[:2], 3, 3, 4)
        q, k, v = made.permute(2, 0, 3, 1, 4).unbind(0)
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2)).mean(1)


def _viewed(n: nn.Module, x: Tensor) -> Tensor:
    y = n.conv2(x)
    return F.relu(y.flatten(2)).view_as(y) + y.flatten(1).reshape_as(y)


def _written(n: nn.Module, x: Tensor) -> Tensor:
    x = n.conv2(x)
    x.add_(1.0)
    return x * 2


def _written_under_two_names(n: nn.Module, x: Tensor) -> Tensor:
    y = n.same(n.conv2(x))
    y.mul_(n.conv1.bias.view(1, -1, 1, 1))
    return y + x


def _cleared(n: nn.Module, x: Tensor) -> Tensor:
    y = n.conv2(x).clone()
    y[:, 2:5].zero_()
    return y + x


def _set(n: nn.Module, x: Tensor) -> Tensor:
    y = n.conv2(x)
    y[:, :, 1:, 2:6] = torch.tanh(y[:, :, 1:, 2:6])
    return y


def _length(n: nn.Module, x: Tensor) -> Tensor:
    y = n.conv2(x)
    return torch.addcmul(x, y / y.norm(p=2, dim=(2, 3), keepdim=True), y)


def _numbers_or_tensors(n: nn.Module, x: Tensor) -> Tensor:
    x = torch.where(x > 0, x, 0.0) + torch.pow(x, 2.0)
    return torch.clamp(torch.float_power(n.conv2(x).abs() + 1.0, 0.5).to(x.dtype), min=0.1)


@pytest.mark.parametrize(
    "middle",
    [_numbers_or_tensors, _viewed, _written, _written_under_two_names, _cleared, _set, _length],
    ids=lambda f: f.__name__.strip("_"),
)
def test_it_is_cut_exactly(middle) -> None:
    network = Made(middle)
    network.same = nn.Identity()
    cut = assert_cut_is_exact(randomise(network), IMAGE, 0.5, seed=0)
    assert cut.plan.kept and not cut.surgeon.graph.whole


def _written_under_a_view(n: nn.Module, x: Tensor) -> Tensor:
    x = n.conv2(x)
    y = x.flatten(2)
    x.add_(1.0)
    return x * y.mean(2)[:, :, None, None]


def _set_under_a_view(n: nn.Module, x: Tensor) -> Tensor:
    x = n.conv2(x)
    y = x[:, :, :4]
    x[:, :, 1:] = torch.tanh(x[:, :, 1:])
    return x.mean((2, 3), keepdim=True) * y


@pytest.mark.parametrize("middle", [_written_under_a_view, _set_under_a_view])
def test_what_another_name_sees_is_never_lost(middle) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv2 = nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return middle(self, x)

    network = randomise(nn.Sequential(nn.Conv2d(3, 8, 3), Block(), nn.Conv2d(8, 4, 1)))
    subnet = prune(network, extract(network, IMAGE), PruningPlan({}))
    torch.testing.assert_close(subnet(IMAGE), network(IMAGE))


@pytest.mark.parametrize("how", ["joined", "cleared"])
def test_a_bias_that_is_put_together_is_cut_with_its_heads(how: str) -> None:
    cut = assert_cut_is_exact(randomise(JoinedBias(how)), IMAGE, 0.5, seed=0)
    assert 3 in [group.size for group in cut.surgeon.graph.groups]
    assert not cut.surgeon.graph.whole


def test_standardised_weights_are_cut_as_they_are_now() -> None:
    network = randomise(standardised())
    cut = assert_cut_is_exact(network, IMAGE, 0.5, seed=0)
    assert [group.size for group in cut.surgeon.graph.groups] == [8, 6]
    assert "0.weight" in cut.subnet.state_dict() and "0.gain" not in cut.subnet.state_dict()
    assert_trains(cut.subnet, IMAGE)


@pytest.mark.parametrize("how", ["added", "truth"])
def test_an_encoder_of_words_is_cut_exactly(how: str) -> None:
    cut = assert_cut_is_exact(randomise(Bert(how)), words(), 0.5, seed=0)
    assert sorted(group.size for group in cut.surgeon.graph.groups) == [4, 4, 32, 32]
    assert_trains(cut.subnet, words())


@pytest.mark.parametrize("settings", [{}, {"embedding": True, "attention": "width"}])
def test_an_encoder_of_words_is_saved_and_rebuilds_itself(settings, tmp_path) -> None:
    network = randomise(Bert())
    graph = extract(network, words(1), **settings)
    plan = random_plan(graph, 0.5, seed=0)
    subnet = prune(network, graph, plan)
    dense = Checkpoint.of(network, "tests.graph.bert:Bert")
    dense.following(subnet, plan, graph).save(tmp_path / "subnet.safetensors")
    again = Checkpoint.load(tmp_path / "subnet.safetensors", trust=True).restore()
    assert all(map(torch.equal, tensors(again(**words())), tensors(subnet(**words()))))
