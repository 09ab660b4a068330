"""Random networks: every way to move, join and mix channels that the rules know."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.graph.mixing import ATTENTION, Attending, CrossStage, Upscaled
from tests.graph.steps import (
    ChannelsLast,
    Concat,
    Conv,
    Functional,
    Grouped,
    Residual,
    Shared,
    Shuffle,
    Split,
    SqueezeExcite,
)
from tests.graph.unusual import UNUSUAL, PixelShuffled, RadixAttention, Scaled, Unusual


class RandomNetwork(nn.Module):
    """Steps, then a head that ends in four classes; `several`: beside a map of two channels."""

    def __init__(self, steps: list[nn.Module], head: str) -> None:
        super().__init__()
        width = steps[-1].out_channels
        head = "mean" if head == "squeeze" and width == 1 else head
        self.steps, self.head = nn.Sequential(*steps), head
        self.pool = nn.MaxPool2d(4)
        self.flatten = nn.Flatten()
        inputs = width if head in ("mean", "squeeze", "several") else width * 4
        self.hidden, self.dropout = nn.Linear(inputs, 6), nn.Dropout(0.2)
        self.classifier = nn.Linear(6, 4)
        self.map = nn.Conv2d(width, 2, 1) if head == "several" else None

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        x = self.steps(x)
        if self.head == "several":
            classes = self.classifier(self.dropout(F.relu(self.hidden(x.mean([2, 3])))))
            return {"classes": classes, "map": self.map(x)}
        if self.head == "mean":
            x = x.mean([2, 3])
        elif self.head == "squeeze":
            x = F.adaptive_max_pool2d(x, 1).squeeze()
        elif self.head == "flatten":
            x = self.flatten(self.pool(x))
        elif self.head == "view":
            x = self.pool(x)
            x = x.view(x.size(0), -1)
        else:
            x = self.pool(x)
            n, c, h, w = x.shape
            x = x.permute(0, 2, 3, 1).reshape(n, c * h * w)
        return self.classifier(self.dropout(F.relu(self.hidden(x))))


Draw = Callable[[st.SearchStrategy], object]


def _conv(draw: Draw, c: int, out: int) -> nn.Module:
    norm = draw(
        st.sampled_from(("batch", "group", "many", "one", "instance", "layer", "plain", "none"))
    )
    kernel, dilation = draw(st.sampled_from(((1, 1), (3, 1), (3, 2), (5, 1))))
    return Conv(c, out, kernel, dilation, norm, draw(st.integers(0, 3)))


def _grouped(draw: Draw, c: int, out: int) -> nn.Module:
    divisors = [g for g in range(1, c + 1) if c % g == 0]
    groups = draw(st.sampled_from(divisors))
    return Grouped(c, groups * draw(st.integers(1, 3)), groups, draw(st.booleans()))


def _residual(draw: Draw, c: int, out: int) -> nn.Module:
    how = draw(st.sampled_from(("project", "pad", "zeros", "slice", "step", "same")))
    if how in ("pad", "zeros"):
        out = c + draw(st.integers(0, 5))
    elif how == "slice":
        out = draw(st.integers(1, c))
    elif how == "step":
        out = (c + 1) // 2
    elif how == "same":
        out = c
    if how == "step" and out == c:
        how = "same"
    middle = draw(st.integers(2, 8))
    inner = nn.Sequential(_conv(draw, c, middle), _conv(draw, middle, out))
    return Residual(c, out, inner, how)


def _split(draw: Draw, c: int, out: int) -> nn.Module:
    if c % 2 or c < 4:
        return _conv(draw, c, out)
    how = draw(st.sampled_from(("chunk", "split", "narrow", "stride")))
    return Split(c, how, _conv(draw, c // 2, out))


def _shuffle(draw: Draw, c: int, out: int) -> nn.Module:
    divisors = [g for g in range(1, c + 1) if c % g == 0]
    how = draw(st.sampled_from(("module", "dynamic", "literal", "flip", "roll")))
    return Shuffle(c, draw(st.sampled_from(divisors)), how)


def _shared(draw: Draw, c: int, out: int) -> nn.Module:
    return Shared(_conv(draw, c, c))


MAKERS: Mapping[str, Callable[[Draw, int, int], nn.Module]] = {
    "conv": _conv,
    "functional": lambda draw, c, out: Functional(c, out),
    "grouped": _grouped,
    "residual": _residual,
    "concat": lambda draw, c, out: Concat(c, [_conv(draw, c, out), _conv(draw, c, 2)]),
    "split": _split,
    "shuffle": _shuffle,
    "squeeze_excite": lambda draw, c, out: SqueezeExcite(
        c, 3, draw(st.sampled_from(("conv", "mean", "view", "literal", "expand")))
    ),
    "channels_last": lambda draw, c, out: ChannelsLast(c, out, draw(st.booleans())),
    "shared": _shared,
    "pixel_shuffle": lambda draw, c, out: PixelShuffled(c, out, draw(st.booleans())),
    "radix": lambda draw, c, out: RadixAttention(c, out, draw(st.integers(1, 3))),
    "unusual": lambda draw, c, out: Unusual(c, draw(st.sampled_from(UNUSUAL))),
    "attention": lambda draw, c, out: Attending(
        c,
        draw(st.integers(1, 4)),
        draw(st.integers(1, 4)),
        draw(st.sampled_from(ATTENTION)),
        draw(st.booleans()),
    ),
    "upscaled": lambda draw, c, out: Upscaled(
        c, out, draw(st.sampled_from([g for g in range(1, c + 1) if c % g == 0]))
    ),
    "cross_stage": lambda draw, c, out: CrossStage(
        c, draw(st.integers(1, 5)), out, draw(st.booleans())
    ),
    "scaled": lambda draw, c, out: Scaled(
        c, draw(st.sampled_from(("width", "area", "spatial", "max", "batch", "stack", "norm")))
    ),
}


@st.composite
def networks(draw: Draw) -> nn.Module:
    """A network of one to six random steps after a first convolution, for [N, 3, 8, 8]."""
    torch.manual_seed(0)
    steps: list[nn.Module] = [_conv(draw, 3, draw(st.integers(2, 10)))]
    for kind in draw(st.lists(st.sampled_from(tuple(MAKERS)), min_size=1, max_size=6)):
        steps.append(MAKERS[kind](draw, steps[-1].out_channels, draw(st.integers(1, 10))))
    head = draw(st.sampled_from(("mean", "squeeze", "flatten", "view", "last", "several")))
    return RandomNetwork(steps, head)
