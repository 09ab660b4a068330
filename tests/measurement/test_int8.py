"""The exported subnet in 8-bit integers."""

from __future__ import annotations

import pytest

from gnnrl.measurement import int8
from gnnrl.measurement.export import onnx_bytes
from gnnrl.measurement.settings import EvaluateSettings
from tests.golden.world import SHAPE, world

onnx = pytest.importorskip("onnx")


@pytest.mark.slow
def test_an_exported_network_is_folded_and_quantised_with_figures_of_its_own():
    given = world()
    exported = onnx_bytes(given.network, SHAPE)
    operations = {node.op_type for node in onnx.load_from_string(exported).graph.node}
    assert not operations & {"BatchNormalization", "Shape"}  # norms folded, shapes constant
    quantised = int8.quantised(exported, given.reward_images)
    assert b"QuantizeLinear" in quantised
    settings = EvaluateSettings(latency_batches=(1,), latency_rounds=2, latency_threads=1)
    models = {"float32": exported, "int8": quantised}
    found = int8.figures(models, given.reward_images, settings)
    assert abs(found["int8"]["accuracy"] - found["float32"]["accuracy"]) < 0.1
    assert found["int8"]["bytes"] == len(quantised)
    assert found["int8"]["milliseconds"]["1"]["milliseconds"] > 0
