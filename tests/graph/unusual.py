"""Steps of random networks that are rarely written."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.graph.steps import SIDE, Step


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


class Unusual(Step):
    """Forms that are rarely written, each of one layer or two."""

    def __init__(self, c: int, how: str) -> None:
        super().__init__(c, c)
        self.how = how
        self.depthwise = nn.Conv2d(c, c, 3, padding=1, groups=c)
        self.line, self.pixels = nn.Conv1d(c, c, 3, padding=1), nn.Linear(SIDE * SIDE, SIDE * SIDE)
        self.fold, self.norm = nn.Linear(c, c * 4), nn.GroupNorm(1, c, 0.1)
        self.attend = nn.Conv1d(1, 1, 3, padding=1)
        self.position = nn.Parameter(torch.zeros(1, c, SIDE, SIDE))

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        if self.how == "depthwise":
            weight, bias = self.depthwise.weight, self.depthwise.bias
            return F.conv2d(x, weight, bias, padding=1, groups=c)
        if self.how == "line":
            return self.line(x.flatten(2)).unflatten(2, (h, w))
        if self.how == "mixer":
            return x + self.pixels(x.flatten(2)).view(n, c, h, w)
        if self.how == "decode":
            y = self.fold(x.mean((2, 3))).view(n, c, 2, 2)
            return x + F.interpolate(y, size=(h, w), mode="nearest")
        if self.how == "group":
            x = F.group_norm(x, 1, self.norm.weight, self.norm.bias, 0.1)
            return F.instance_norm(x, eps=0.1)
        if self.how == "manual":
            y = x.reshape(n, 1, c * h * w)
            y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, keepdim=True) + 0.1).sqrt()
            return y.view(n, c, h, w) * self.norm.weight.view(1, -1, 1, 1)
        if self.how == "attend":
            y = self.attend(x.mean((2, 3)).unsqueeze(1)).transpose(1, 2)
            return x * torch.sigmoid(y.unsqueeze(-1))
        if self.how == "position":
            return (x + self.position).clamp(-2.0, 2.0)
        if self.how == "repeat":
            return x.repeat(1, 2, 1, 1)[:, :c] + x.repeat_interleave(2, dim=1)[:, ::2]
        if self.how == "pieces":
            top, bottom = x.split(SIDE // 2, dim=2)
            return torch.cat((bottom, top), dim=2)
        x = torch.where(x > 0, x, 0.1 * x)
        y = self.depthwise(x)
        y += x
        x = y
        return x.max(dim=3, keepdim=True)[0] + x


UNUSUAL = "depthwise line mixer decode group manual attend position repeat pieces where".split()
