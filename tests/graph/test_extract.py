"""Which channels go together, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnnrl.errors import UserError
from gnnrl.graph.cost import cost
from gnnrl.graph.extract import extract
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.networks.build import build_network
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import prune
from tests.cutting import assert_cut_is_exact, randomise

IMAGE = torch.zeros(2, 3, 8, 8)


class Made(nn.Module):
    """conv1 (3 → 8), then `middle`, then a head of four classes."""

    def __init__(self, middle: Callable[[nn.Module, Tensor], Tensor], width: int = 8) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.middle, self.head = middle, nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self, self.conv1(x)).mean((2, 3)))


def _groups(network: nn.Module) -> dict[str, tuple[int, tuple[str, ...]]]:
    return {g.name: (g.size, g.layers) for g in extract(network, IMAGE).groups}


def test_an_addition_ties_its_inputs() -> None:
    groups = _groups(Made(lambda n, x: x + n.conv2(x)))
    assert groups == {"conv1": (8, ("conv1", "conv2"))}


def test_a_chain_is_free() -> None:
    groups = _groups(Made(lambda n, x: n.conv2(x)))
    assert groups == {"conv1": (8, ("conv1",)), "conv2": (8, ("conv2",))}


def test_a_concatenation_keeps_its_inputs_apart() -> None:
    groups = _groups(Made(lambda n, x: torch.cat([x, n.conv2(x)], 1), 16))
    assert groups == {"conv1": (8, ("conv1",)), "conv2": (8, ("conv2",))}


def test_padding_ties_single_channels() -> None:
    groups = _groups(Made(lambda n, x: F.pad(x[:, :4], (0, 0, 0, 0, 2, 2)) + n.conv2(x)))
    assert groups == {
        "conv1": (4, ("conv1", "conv2")),
        "conv1#2": (4, ("conv1",)),
        "conv2": (4, ("conv2",)),
    }


def test_named_parts_of_a_result_are_understood() -> None:
    groups = _groups(Made(lambda n, x: n.conv2(x) + x.max(dim=3, keepdim=True).values))
    assert groups == {"conv1": (8, ("conv1", "conv2"))}


def test_manual_group_norm_ties_channels_of_a_group_or_place() -> None:
    def middle(n: nn.Module, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        y = x.view(b, 4, c // 4 * h * w)
        y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, keepdim=True) + 1e-5).sqrt()
        return n.conv2(y.view(b, c, h, w))

    assert "conv2" in _groups(Made(middle))


@pytest.mark.parametrize("name", ["resnet56", "shufflenet_v2", "mobilenet_v2"])
def test_a_graph_is_read_back_as_it_was(name: str, tmp_path: Path) -> None:
    graph = extract(build_network(name), torch.zeros(1, 3, 32, 32))
    graph.save(tmp_path / "graph.json")
    loaded = ComputationalGraph.load(tmp_path / "graph.json")
    assert loaded == graph and loaded.digest == graph.digest
    assert cost(loaded) == cost(graph)


def test_neither_batch_nor_values_nor_weights_matter_to_the_graph() -> None:
    one = extract(build_network("resnet20"), torch.zeros(1, 3, 32, 32))
    other = extract(build_network("resnet20"), torch.randn(5, 3, 32, 32))
    assert one == other


def test_extraction_leaves_the_network_as_it_was() -> None:
    network = build_network("resnet20").train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    extract(network, torch.randn(2, 3, 32, 32))
    assert network.training
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


# --- refused ---------------------------------------------------------------------------------


def _sentence(network: nn.Module, image: Tensor = IMAGE, protect: tuple[str, ...] = ()) -> str:
    with pytest.raises(UserError) as caught:
        extract(network, image, protect)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 400
    return text


def _branch(n: nn.Module, x: Tensor) -> Tensor:
    return x if x.sum() > 0 else -x


def _item(n: nn.Module, x: Tensor) -> Tensor:
    return x * x.max().item()


def _nonzero(n: nn.Module, x: Tensor) -> Tensor:
    return x[x.sum((1, 2, 3)) > 0]


def _count(n: nn.Module, x: Tensor) -> Tensor:
    for _ in range(int(x.abs().sum())):
        x = n.conv2(x)
    return x


@pytest.mark.parametrize("middle", [_branch, _item, _nonzero, _count])
def test_what_depends_on_the_data_is_refused(middle: Callable[..., Tensor]) -> None:
    text = _sentence(Made(middle))
    assert "depends on the data" in text and "protect" in text


class Part(nn.Module):
    """A part that holds something which cannot be read."""

    def __init__(self, how: Callable[..., Tensor]) -> None:
        super().__init__()
        self.how, self.conv2 = how, nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.how(self, x))


class WithPart(nn.Module):
    def __init__(self, how: Callable[..., Tensor]) -> None:
        super().__init__()
        self.conv1, self.part = nn.Conv2d(3, 8, 1), Part(how)
        self.conv3, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv3(self.part(self.conv1(x))).mean((2, 3)))


def _fourier(n: nn.Module, x: Tensor) -> Tensor:
    return torch.fft.fft(x).real


def _attention(n: nn.Module, x: Tensor) -> Tensor:
    y = x.flatten(2)
    return (torch.softmax(y @ y.transpose(1, 2), -1) @ y).view(x.shape)


@pytest.mark.parametrize(
    ("how", "operation"), [(_fourier, "fft_fft"), (_attention, "matmul"), (_branch, "gt")]
)
def test_a_refusal_names_layer_operation_and_remedy(
    how: Callable[..., Tensor], operation: str
) -> None:
    text = _sentence(WithPart(how))
    assert text.startswith("part: ") and f"'{operation}'" in text and "extract.protect" in text


@pytest.mark.parametrize("how", [_fourier, _attention, _branch, _item])
def test_protecting_the_part_lets_the_rest_be_cut(how: Callable[..., Tensor]) -> None:
    network, image = randomise(WithPart(how)), torch.randn(2, 3, 8, 8)
    graph = extract(network, image, protect=["part"])
    assert [g.name for g in graph.groups] == ["conv3"]
    plan = PruningPlan({"conv3": (1, 4, 6)})
    subnet = prune(network, graph, plan)
    hidden = network.conv3(network.part(network.conv1(image))).mean((2, 3))
    weight = network.head.weight[:, [1, 4, 6]]
    expected = hidden[:, [1, 4, 6]] @ weight.T + network.head.bias
    torch.testing.assert_close(subnet(image), expected)


@pytest.mark.parametrize("name", ["vit_b_16", "swin_t"])
def test_transformers_are_refused(name: str) -> None:
    with torch.device("meta"):
        network = build_network(f"torchvision/{name}", 10, (3, 224, 224))
    text = _sentence(network, torch.zeros(1, 3, 224, 224))
    assert "protect" in text and ("encoder" in text or "features" in text)


def test_protected_attention_stays_and_the_rest_is_cut() -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.attention = nn.Conv2d(3, 8, 1), nn.MultiheadAttention(8, 2)
            self.linear, self.head = nn.Linear(8, 6), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv1(x).flatten(2).permute(2, 0, 1)
            y = self.attention(y, y, y)[0]
            return self.head(self.linear(y).relu().mean(0))

    assert "attention: " in _sentence(Attending())
    graph = extract(Attending(), IMAGE, protect=["attention"])
    assert [g.name for g in graph.groups] == ["linear"]


def test_several_inputs_are_refused() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    assert "2 inputs" in _sentence(Two())


def test_an_image_it_cannot_take_is_refused() -> None:
    assert "shape" in _sentence(build_network("basic_cnn"), torch.zeros(1, 4, 32, 32))


def test_protecting_what_is_not_there_is_refused() -> None:
    assert "'nowhere'" in _sentence(build_network("basic_cnn"), protect=("nowhere",))


def test_protected_layers_keep_every_filter() -> None:
    network, image = build_network("resnet20"), torch.zeros(1, 3, 32, 32)
    free = extract(network, image)
    layer = free.groups[1].layers[0]
    held = extract(network, image, protect=[layer])
    assert all(layer not in group.layers for group in held.groups)
    assert held.num_units == free.num_units - free.groups[1].size


# --- plans and graphs of something else ------------------------------------------------------


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        ({"nowhere": (0,)}, "does not have"),
        ({"conv1": (0, 8)}, "filter 8"),
        ({"conv1": (0,)}, "must go together"),
        ({"conv1": (0,), "conv2": (1,)}, "must go together"),
        ({"head": (0,)}, "must stay"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(kept: dict[str, tuple[int, ...]], words: str) -> None:
    network = Made(lambda n, x: x + n.conv2(x))
    graph, plan = extract(network, IMAGE), PruningPlan(kept)
    for use in (lambda: prune(network, graph, plan), lambda: cost(graph, plan)):
        with pytest.raises(UserError, match=words) as caught:
            use()
        assert "\n" not in str(caught.value)


def test_unknown_removed_and_sparse_layers_are_refused() -> None:
    network = Made(lambda n, x: n.conv2(x))
    graph = extract(network, IMAGE)
    for plan in (
        PruningPlan(removed_layers=frozenset({"nowhere"})),
        PruningPlan(weight_sparsity={"nowhere": 0.5}),
    ):
        for use in (lambda: prune(network, graph, plan), lambda: cost(graph, plan)):  # noqa: B023
            with pytest.raises(UserError, match="'nowhere'"):
                use()


def test_the_graph_of_another_network_is_refused() -> None:
    graph = extract(build_network("resnet20"), torch.zeros(1, 3, 32, 32))
    with pytest.raises(UserError, match="not that of this"):
        prune(build_network("resnet32"), graph, PruningPlan({}))


def _saved(path: Path) -> dict[str, object]:
    extract(Made(lambda n, x: n.conv2(x)), IMAGE).save(path)
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("edit", ["groups", "nodes", "parameters", "digest", "input_shape"])
def test_a_graph_edited_by_hand_is_refused(edit: str, tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    content = _saved(path)
    if edit == "groups":
        content["groups"][0]["size"] += 1
    elif edit == "nodes":
        content["nodes"][0]["shape"][0] += 1
    elif edit == "parameters":
        content["parameters"].popitem()
    elif edit == "digest":
        content["digest"] = "0" * 64
    else:
        del content["input_shape"]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError, match=r"graph\.json.*extract") as caught:
        ComputationalGraph.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "3", '{"digest": 1}'])
def test_what_is_no_graph_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"graph\.json"):
        ComputationalGraph.load(path)


# --- never cut wrong -------------------------------------------------------------------------


def _pool_over_channels(n: nn.Module, x: Tensor) -> Tensor:
    y = F.avg_pool1d(x.flatten(2).transpose(1, 2), 2)
    return n.conv2(x) * y.mean((1, 2))[:, None, None, None]


def _efficient_channel_attention(n: nn.Module, x: Tensor) -> Tensor:
    y = F.adaptive_avg_pool2d(x, 1).squeeze(-1).transpose(-1, -2)
    y = F.conv1d(y, n.conv2.weight[:1, :1, 0], padding=1)
    return x * torch.sigmoid(y.transpose(-1, -2).unsqueeze(-1))


def _moved_parameter(n: nn.Module, x: Tensor) -> Tensor:
    return x * n.conv2.weight[:, :, 0, 0].t().sum(1).view(1, -1, 1, 1)


def _two_parameters(n: nn.Module, x: Tensor) -> Tensor:
    return x + (n.conv2.weight * n.conv2.weight)[:, 0, 0, 0].view(1, -1, 1, 1)


def _var_unbiased(n: nn.Module, x: Tensor) -> Tensor:
    return n.conv2(x) * x.var(False)


def _outer(n: nn.Module, x: Tensor) -> Tensor:
    y = x.mean((2, 3))
    return n.conv2(x) * (y[:, :, None] + y[:, None, :]).mean((1, 2))[:, None, None, None]


def _slice_both(n: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([x[:, :4, ::2], n.conv2(x)[:, 4:, 1::2]], 1)


def _unbind(n: nn.Module, x: Tensor) -> Tensor:
    return torch.stack(x.unbind(1)[::-1], 1)


def _expand(n: nn.Module, x: Tensor) -> Tensor:
    return n.conv2(x) * x.mean(1, keepdim=True).expand(-1, 8, -1, -1)


def _halves(n: nn.Module, x: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=2)
    return n.conv2(torch.cat([b, a], dim=2))


def _swapped(n: nn.Module, x: Tensor) -> Tensor:
    return n.conv2(torch.cat(x.chunk(2, dim=1)[::-1], 1))


def _write_into_part(n: nn.Module, x: Tensor) -> Tensor:
    part = x[:, 2:6]
    part += 1.0
    return n.conv2(x) + F.pad(part, (0, 0, 0, 0, 2, 2))


def _write_and_forget(n: nn.Module, x: Tensor) -> Tensor:
    x.add_(1.0)
    return n.conv2(x)


def _write_and_go_on(n: nn.Module, x: Tensor) -> Tensor:
    y = n.conv2(x)
    z = y
    y += x
    return y * z


def test_writing_without_using_the_result_is_refused() -> None:
    assert "'add_'" in _sentence(Made(_write_and_forget))


def test_what_is_written_in_place_is_seen_under_every_name() -> None:
    network, image = randomise(Made(_write_and_go_on)), torch.randn(2, 3, 8, 8)
    subnet = prune(network, extract(network, image), PruningPlan({}))
    torch.testing.assert_close(subnet(image), network(image))


def test_writing_into_a_part_that_is_read_again_is_refused() -> None:
    assert "'iadd'" in _sentence(Made(_write_into_part))


@pytest.mark.parametrize(
    "middle",
    [
        _swapped,
        _pool_over_channels,
        _efficient_channel_attention,
        _moved_parameter,
        _two_parameters,
        _var_unbiased,
        _outer,
        _slice_both,
        _unbind,
        _expand,
        _halves,
    ],
)
def test_unusual_code_is_cut_exactly_or_refused(middle: Callable[..., Tensor]) -> None:
    network, image = randomise(Made(middle)), torch.randn(2, 3, 8, 8)
    try:
        extract(network, image)
    except UserError:
        return
    assert_cut_is_exact(network, image, 0.5, seed=0)
