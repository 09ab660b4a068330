"""The settings of encoders and policies, and what stands behind their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from gnnrl.settings import Count, Settings, Switch, name_in

ENCODERS: Mapping[str, str] = {
    "plain": "gnnrl.rl.gnn:Encoder",
    "multi_stage": "gnnrl.rl.gnn:Encoder",
    "encoder_decoder": "gnnrl.rl.decoder:EncoderDecoder",
}
"""By name, where an encoder is; it is called with an `ObservationSpec` and `EncoderSettings`."""

POLICIES: Mapping[str, str] = {"shared": "gnnrl.rl.policy:Policy"}
"""By name, where an `ActorCritic` is."""


class GnnSettings(Settings):
    """The size of the encoder. `blind` and `message_passing` are there for ablations."""

    hidden: Annotated[Count, Field(le=8192)] = 64
    """Width of every embedding."""
    layers: Annotated[Count, Field(le=100)] = 3
    """Rounds of message passing on the graph."""
    blind: Switch = False
    """Ablation: all features read as zero, only the topology is seen."""
    message_passing: Switch = True
    """False, an ablation: every node by itself, the graph unseen."""


class EncoderSettings(GnnSettings):
    """The encoder of a policy."""

    encoder: Annotated[str, name_in("gnnrl.rl.settings:ENCODERS")] = "multi_stage"
    """plain: the graph alone; multi_stage: its channels first; encoder_decoder: then an LSTM over
    the decisions; or package.module:name."""
    policy: Annotated[str, name_in("gnnrl.rl.settings:POLICIES")] = "shared"
    """Actor and critic. shared: on one encoder; or package.module:name."""
