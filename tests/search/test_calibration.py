"""The calibration of a network is kept for its next search."""

from __future__ import annotations

import torch

from gnnrl.graph.extract import extract
from gnnrl.networks.build import build_network
from gnnrl.pruning.surgery import Surgeon
from gnnrl.search import calibration


def test_the_next_search_of_a_network_takes_the_calibration_of_the_first(tmp_path, monkeypatch):
    torch.manual_seed(0)
    network = build_network("resnet20", 10, (3, 8, 8)).eval()
    surgeon = Surgeon(network, extract(network, torch.zeros(1, 3, 8, 8)))
    images = torch.randn(8, 3, 8, 8)
    first = calibration.reconstruct(surgeon, images, 0, tmp_path)
    before, counted = calibration.collect, []

    def collect(*given, **named):
        counted.append(1)
        return before(*given, **named)

    monkeypatch.setattr(calibration, "collect", collect)
    again = calibration.reconstruct(surgeon, images, 0, tmp_path)
    assert not counted
    assert again.calibration.forward_images == first.calibration.forward_images
    for name, score in first.importance.items():
        assert torch.equal(score, again.importance[name])
    for layer, moments in first.calibration.moments.items():
        kept = again.calibration.moments[layer]
        assert torch.equal(moments.second, kept.second)
        assert torch.equal(moments.solution, kept.solution)
    calibration.reconstruct(surgeon, images + 1, 0, tmp_path)
    calibration.reconstruct(surgeon, images, 1, tmp_path)
    assert len(counted) == 2  # other images and another seed are calibrated anew
