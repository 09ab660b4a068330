"""Steps of random networks: layers, branches, shuffles."""

from __future__ import annotations

import torch
import torch.nn.functional as F
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
