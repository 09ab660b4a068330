"""Encoders by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from gnnrl.registry import named
from gnnrl.rl.decoder import EncoderDecoder
from gnnrl.rl.gnn import Encoder, EncoderSettings
from gnnrl.rl.observation import ObservationSpec

ENCODERS: Mapping[str, Callable[[ObservationSpec, EncoderSettings], nn.Module]] = {
    "plain": Encoder,
    "multi_stage": Encoder,
    "encoder_decoder": EncoderDecoder,
}


def build_encoder(spec: ObservationSpec, settings: EncoderSettings) -> nn.Module:
    """Return the encoder that the settings name: a key of ENCODERS, or `package.module:name`.

    Whatever it is maps a graph, or several joined by `collate`, to embeddings `[N, hidden]`.
    """
    return named(settings.encoder, ENCODERS, "encoder")(spec, settings)
