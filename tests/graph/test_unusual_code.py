"""Code that is rarely written is cut exactly or refused, never cut wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnnrl.errors import UserError
from gnnrl.graph.extract import extract
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import prune
from tests.cutting import assert_cut_is_exact, randomise
from tests.graph.made import Made, refusal


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


def _add_to_part(n: nn.Module, x: Tensor) -> Tensor:
    y = n.conv2(x)
    y[:, :, 1:] += x[:, :, 1:]
    y[:, :, :, :4] *= 2.0
    return y


def _write_and_forget(n: nn.Module, x: Tensor) -> Tensor:
    x.add_(1.0)
    return n.conv2(x)


def _write_and_go_on(n: nn.Module, x: Tensor) -> Tensor:
    y = n.conv2(x)
    z = y
    y += x
    return y * z


def test_what_is_written_in_place_is_seen_under_every_name() -> None:
    network, image = randomise(Made(_write_and_go_on)), torch.randn(2, 3, 8, 8)
    subnet = prune(network, extract(network, image), PruningPlan({}))
    torch.testing.assert_close(subnet(image), network(image))


def test_what_is_added_to_a_part_of_a_tensor_is_cut_with_it() -> None:
    network, image = randomise(Made(_add_to_part)), torch.randn(2, 3, 8, 8)
    cut = assert_cut_is_exact(network, image, 0.5, seed=0)
    assert not cut.surgeon.analysis.graph.whole


def test_writing_into_a_part_that_is_read_again_is_refused() -> None:
    assert "'iadd'" in refusal(Made(_write_into_part))


def _centred(n: nn.Module, x: Tensor) -> Tensor:
    flat = x.reshape(x.shape[0], 1, -1)
    return n.depthwise((flat - flat.mean(-1, keepdim=True)).view(x.shape))


def test_a_depthwise_convolution_of_channels_that_all_stay_has_as_many_groups() -> None:
    network, image = Made(_centred), torch.randn(2, 3, 6, 9)
    network.depthwise = nn.Conv2d(8, 8, 3, groups=8)
    assert_cut_is_exact(randomise(network), image, 0.5, seed=0)


@pytest.mark.parametrize(
    "middle",
    [
        _swapped,
        _write_and_forget,
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
