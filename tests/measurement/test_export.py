"""Exported files: the same bytes for the same network."""

from __future__ import annotations

from torch import nn

from gnnrl.measurement.export import program_bytes


def test_a_program_holds_no_addresses_in_memory():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    one, keep = program_bytes(network, (1, 2, 2)), [object() for _ in range(1000)]
    assert b"graph_id" not in one
    assert program_bytes(network, (1, 2, 2)) == one and keep
