"""What evaluate says of speed: every runtime, ratios round by round, noise."""

from __future__ import annotations

import pytest
import torch

from gnnrl.errors import UserError
from gnnrl.measurement import comparison
from gnnrl.measurement.running import graph_of, session_of
from gnnrl.measurement.settings import EvaluateSettings
from tests.golden.world import SHAPE, world


def test_every_runtime_and_batch_size_is_measured():
    settings = EvaluateSettings(
        latency_runtimes=("torch", "torch_channels_last"), latency_batches=(1, 2),
        latency_rounds=2, latency_threads=1,
    )  # fmt: skip
    network = world().network
    found = comparison.latency({"dense": network, "subnet": network}, SHAPE, settings)
    assert list(found["runtimes"]) == ["torch", "torch_channels_last"]
    for sizes in found["runtimes"].values():
        assert list(sizes) == ["1", "2"]
        assert all(both["speedup"]["median"] > 0 for both in sizes.values())
    assert found["threads"] == 1


def test_a_noisy_machine_gives_a_warning_for_each_figure_above_the_bound():
    def both(dense: float, subnet: float) -> dict:
        return {
            "dense": {"milliseconds": 2.0, "spread": dense},
            "subnet": {"milliseconds": 1.0, "spread": subnet},
        }

    found = {"torch": {"1": both(0.05, 0.3)}, "onnxruntime": {"64": both(0.1, 0.1)}}
    (warning,) = comparison.noise(found, 0.1)
    assert warning.startswith("noisy machine: subnet at batch 1 in torch has a spread of 30 %")
    assert comparison.noise(found, 0.4) == []


def test_sessions_leave_the_cores_to_each_other_between_runs():
    network, images = world().network, torch.zeros(1, *SHAPE)
    options = session_of(graph_of(network, images), 2).get_session_options()
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"


def test_a_runtime_that_is_not_known_is_refused_before_anything_is_measured():
    with pytest.raises(ValueError, match=r"latency_runtimes.*did you mean torch"):
        EvaluateSettings(latency_runtimes=("torhc",))
    settings = EvaluateSettings().model_copy(update={"latency_runtimes": ("torch", "tensorrt")})
    network = world().network
    with pytest.raises(UserError, match="there is no runtime 'tensorrt'"):
        comparison.latency({"dense": network, "subnet": network}, SHAPE, settings)
