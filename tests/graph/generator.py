"""Random networks: every way to move, join and mix channels that the rules know."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

SIDE = 8


class Step(nn.Module):
    """One step of a random network: `forward` from [N, C, S, S] to [N, C_out, S, S]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels


class Conv(Step):
    """Convolution, norm, activation; module or functional form."""

    def __init__(self, c: int, out: int, kernel: int, dilation: int, norm: str, act: int) -> None:
        super().__init__(c, out)
        self.conv = nn.Conv2d(
            c, out, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=act % 2 == 0
        )
        self.norm = _norm(norm, out)
        self.act = (nn.ReLU(), nn.SiLU(), nn.PReLU(out), nn.Sigmoid())[act]

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


class Functional(Step):
    """The same, written with functions and parameters."""

    def __init__(self, c: int, out: int) -> None:
        super().__init__(c, out)
        self.weight = nn.Parameter(torch.zeros(out, c, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out))
        self.gamma = nn.Parameter(torch.ones(1, out, 1, 1))
        self.register_buffer("mean", torch.zeros(out))
        self.register_buffer("var", torch.ones(out))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.weight, self.bias, padding=1)
        x = F.batch_norm(x, self.mean, self.var)
        return F.leaky_relu(x * self.gamma + self.bias[None, :, None, None], 0.1)


class Grouped(Step):
    def __init__(self, c: int, out: int, groups: int, transposed: bool) -> None:
        super().__init__(c, out)
        kind = nn.ConvTranspose2d if transposed else nn.Conv2d
        self.conv = kind(c, out, 3, padding=1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.conv(x))


class Residual(Step):
    """Inner steps beside the identity; channels of zeros where widths differ."""

    def __init__(self, c: int, out: int, inner: nn.Module, how: str) -> None:
        super().__init__(c, out)
        self.inner, self.how = inner, how
        self.project = nn.Conv2d(c, out, 1) if how == "project" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        extra = self.out_channels - self.in_channels
        if self.how == "pad" and extra > 0:
            x = F.pad(x, (0, 0, 0, 0, extra // 2, extra - extra // 2))
        elif self.how == "zeros" and extra > 0:
            n, _, h, w = x.shape
            x = torch.cat([x, torch.zeros(n, extra, h, w, dtype=x.dtype)], dim=1)
        elif self.how == "slice" and extra < 0:
            x = x[:, -self.out_channels :]
        elif self.how == "step":
            x = x[:, ::2] if extra else x
        return self.project(x) + y


class Concat(Step):
    def __init__(self, c: int, branches: list[nn.Module]) -> None:
        super().__init__(c, c + sum(b.out_channels for b in branches))
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, *(branch(x) for branch in self.branches)], 1)


class Split(Step):
    """Parts of the channels go different ways."""

    def __init__(self, c: int, how: str, inner: nn.Module) -> None:
        super().__init__(c, c // 2 + inner.out_channels)
        self.how, self.inner = how, inner

    def forward(self, x: Tensor) -> Tensor:
        half = self.in_channels // 2
        if self.how == "chunk":
            a, b = x.chunk(2, dim=1)
        elif self.how == "split":
            a, b = torch.split(x, [half, half], dim=1)
        elif self.how == "narrow":
            a, b = x.narrow(1, 0, half), x.narrow(1, half, half)
        else:
            a, b = x[:, ::2], x[:, 1::2]
        return torch.cat([self.inner(a), b], dim=1)


class Shuffle(Step):
    def __init__(self, c: int, groups: int, how: str) -> None:
        super().__init__(c, c)
        self.groups, self.how = groups, how
        self.module = nn.ChannelShuffle(groups)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.size()
        if self.how == "module":
            return self.module(x)
        if self.how == "dynamic":
            x = x.view(n, self.groups, c // self.groups, h, w)
            return x.transpose(1, 2).contiguous().view(n, -1, h, w)
        if self.how == "literal":
            width = self.in_channels // self.groups
            x = x.reshape(-1, self.groups, width, SIDE, SIDE).permute(0, 2, 1, 3, 4)
            return x.reshape(-1, self.in_channels, SIDE, SIDE)
        if self.how == "flip":
            return x.flip(1)
        return torch.roll(x, self.groups, 1)


class SqueezeExcite(Step):
    def __init__(self, c: int, middle: int, how: str) -> None:
        super().__init__(c, c)
        self.how = how
        linear = how in ("view", "literal", "expand")
        self.fc1 = nn.Linear(c, middle) if linear else nn.Conv2d(c, middle, 1)
        self.fc2 = nn.Linear(middle, c) if linear else nn.Conv2d(middle, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.shape
        if self.how == "conv":
            gate = F.adaptive_avg_pool2d(x, 1)
        elif self.how == "mean":
            gate = x.mean((2, 3), keepdim=True)
        elif self.how == "literal":
            gate = F.adaptive_avg_pool2d(x, 1).view(-1, self.in_channels)
        else:
            gate = F.adaptive_avg_pool2d(x, 1).view(b, c)
        gate = torch.sigmoid(self.fc2(F.relu(self.fc1(gate))))
        if self.how == "view":
            gate = gate.view(b, c, 1, 1)
        elif self.how == "literal":
            gate = gate.reshape(-1, self.in_channels, 1, 1)
        elif self.how == "expand":
            gate = gate[:, :, None, None].expand_as(x)
        return x * gate


class ChannelsLast(Step):
    """Layer norm and linear layers on [N, H, W, C], as ConvNeXt does."""

    def __init__(self, c: int, middle: int, functional: bool) -> None:
        super().__init__(c, c)
        self.functional = functional
        self.norm = nn.LayerNorm(c)
        self.up, self.down = nn.Linear(c, middle), nn.Linear(middle, c)
        self.scale = nn.Parameter(torch.ones(c, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = x.permute(0, 2, 3, 1)
        if self.functional:
            y = F.layer_norm(y, (self.in_channels,), self.norm.weight, self.norm.bias, 1e-5)
        else:
            y = self.norm(y)
        y = self.down(F.gelu(self.up(y))).permute(0, 3, 1, 2)
        return x + self.scale * y


class Shared(Step):
    """One module applied twice."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner.in_channels, inner.out_channels)
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.inner(x)) if self.in_channels == self.out_channels else self.inner(x)


class PixelShuffled(Step):
    """To twice the size and back, by way of channels."""

    def __init__(self, c: int, out: int, functional: bool) -> None:
        super().__init__(c, out)
        self.functional = functional
        self.conv = nn.Conv2d(c, out * 4, 3, padding=1)
        self.shuffle = nn.PixelShuffle(2)
        self.reduce = nn.Conv2d(out, out, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = F.pixel_shuffle(x, 2) if self.functional else self.shuffle(x)
        return self.reduce(F.relu(x))


class RadixAttention(Step):
    """Split attention (ResNeSt): softmax over groups of channels."""

    def __init__(self, c: int, out: int, radix: int) -> None:
        super().__init__(c, out)
        self.radix = radix
        self.conv = nn.Conv2d(c, out * radix, 3, padding=1)
        self.fc1, self.fc2 = nn.Conv2d(out, 4, 1), nn.Conv2d(4, out * radix, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        n, c, h, w = x.shape
        parts = x.reshape(n, self.radix, c // self.radix, h, w)
        gate = F.adaptive_avg_pool2d(parts.sum(dim=1), 1)
        gate = self.fc2(F.relu(self.fc1(gate))).view(n, self.radix, -1)
        gate = F.softmax(gate, dim=1).reshape(n, self.radix, c // self.radix, 1, 1)
        return (parts * gate).sum(dim=1)


class Scaled(Step):
    """Arithmetic with numbers that follow from shapes, and statistics over an axis."""

    def __init__(self, c: int, how: str) -> None:
        super().__init__(c, c)
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "width":
            return x / x.shape[1] ** 0.5
        if self.how == "area":
            return x.sum((2, 3), keepdim=True) / (x.shape[2] * x.shape[3]) + x
        if self.how == "spatial":
            return x * torch.sigmoid(x.mean(1, keepdim=True))
        if self.how == "max":
            return x + torch.max(x, 1, keepdim=True)[0]
        if self.how == "batch":
            n, c, h, w = x.shape
            return F.avg_pool2d(x.view(n * c, 1, h, w), 3, 1, 1).view(n, c, h, w)
        if self.how == "stack":
            n, c, h, w = x.shape
            y = torch.stack([x, torch.tanh(x)], dim=2).reshape(n, 2 * c, h, w)
            return y[:, ::2] + y[:, 1::2]
        return F.normalize(x, dim=1)


def _norm(name: str, c: int) -> nn.Module:
    """With a large `eps`, so that rounding is not blown up where an image is nearly constant."""
    groups, eps = 4 if c % 4 == 0 else 2 if c % 2 == 0 else 1, 0.1
    return {
        "batch": lambda: nn.BatchNorm2d(c, eps),
        "group": lambda: nn.GroupNorm(groups, c, eps),
        "many": lambda: nn.GroupNorm(c // 2 if c % 2 == 0 else c, c, eps),
        "one": lambda: nn.GroupNorm(1, c, eps),
        "instance": lambda: nn.InstanceNorm2d(c, eps, affine=True),
        "layer": lambda: nn.LayerNorm((c, SIDE, SIDE), eps),
        "plain": lambda: nn.LayerNorm((c, SIDE, SIDE), eps, elementwise_affine=False),
        "none": lambda: nn.Identity(),
    }[name]()


class RandomNetwork(nn.Module):
    """Steps, then a head that ends in four classes."""

    def __init__(self, steps: list[nn.Module], head: str) -> None:
        super().__init__()
        width = steps[-1].out_channels
        head = "mean" if head == "squeeze" and width == 1 else head
        self.steps, self.head = nn.Sequential(*steps), head
        self.pool = nn.MaxPool2d(4)
        self.flatten = nn.Flatten()
        inputs = width if head in ("mean", "squeeze") else width * 4
        self.hidden, self.dropout = nn.Linear(inputs, 6), nn.Dropout(0.2)
        self.classifier = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.steps(x)
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
    head = draw(st.sampled_from(("mean", "squeeze", "flatten", "view", "last")))
    return RandomNetwork(steps, head)
