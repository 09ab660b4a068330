"""Batch-norm statistics measured anew."""

from __future__ import annotations

import torch
from torch import nn

from gnnrl.pruning.batch_norm import recalibrate


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Dropout(0.5))


def test_the_statistics_are_those_of_the_images():
    net, images = network(), torch.randn(64, 3, 8, 8)
    recalibrate(net, [images])
    out = net[0](images)
    torch.testing.assert_close(net[1].running_mean, out.mean((0, 2, 3)).detach())
    torch.testing.assert_close(net[1].running_var, out.var((0, 2, 3)).detach())


def test_batches_weigh_the_same_and_nothing_else_changes():
    net, parts = network(), [torch.randn(16, 3, 8, 8) for _ in range(3)]
    weights = {k: v.clone() for k, v in net.named_parameters()}
    net.train()
    net[2].eval()
    recalibrate(net, parts)
    means = torch.stack([net[0](p).mean((0, 2, 3)) for p in parts]).mean(0)
    torch.testing.assert_close(net[1].running_mean, means.detach())
    assert net[1].momentum == 0.1
    assert (net.training, net[1].training, net[2].training) == (True, True, False)
    assert all(torch.equal(v, weights[k]) for k, v in net.named_parameters())
