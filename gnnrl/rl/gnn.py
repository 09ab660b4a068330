"""Graph neural networks that read an observation into one embedding per node."""

# N: nodes   E: edges   C: channels   F, D, K: their features   H: hidden width

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch_geometric.data import Data

from gnnrl.registry import named
from gnnrl.rl.observation import ObservationSpec
from gnnrl.settings import Count, Settings, Switch, name_in


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

    encoder: Annotated[str, name_in("gnnrl.rl.gnn:ENCODERS")] = "multi_stage"
    """plain: the graph alone; multi_stage: its channels first; or package.module:name."""


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Return a perceptron with one hidden layer."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def pooled_mean(values: Tensor, index: Tensor, size: int) -> Tensor:
    """Mean of the rows of `values [M, H]` by `index [M]`, [size, H]; zero where there are none."""
    total = values.new_zeros(size, values.shape[1]).index_add(0, index, values)
    count = values.new_zeros(size).index_add(0, index, values.new_ones(len(index)))
    return total / count.clamp(min=1).unsqueeze(1)


class GatedConv(nn.Module):
    """Residual gated graph convolution with edge features (Bresson & Laurent 2017, Eq. 11).

    h_i + relu(U h_i + sum_j gate_ij * (V h_j + e_ij)) on normalised h, where gate_ij is a sigmoid
    of the receiver, the sender and the edge.
    """

    def __init__(self, hidden: int, edge_features: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.node = nn.Linear(hidden, 2 * hidden)  # U h_i and the receiver's part of the gate
        self.sender = nn.Linear(hidden, 2 * hidden, bias=False)  # V h_j and its part of the gate
        self.edge = nn.Linear(edge_features, 2 * hidden, bias=False)

    def forward(self, h: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """Return the new embeddings, [N, H]."""
        source, target = edge_index
        normed = self.norm(h)
        own, receives = self.node(normed).chunk(2, dim=1)
        message, gate = (self.sender(normed).index_select(0, source) + self.edge(edge_attr)).chunk(
            2, dim=1
        )  # [E, H]
        gate = torch.sigmoid(gate + receives.index_select(0, target))
        return h + torch.relu(own.index_add(0, target, gate * message))


class ChannelEncoder(nn.Module):
    """Stage 1: the channels of each node, joined in a star, read into one embedding per node.

    Two rounds: the centre hears the mean of its channels, the channels hear the centre. Channels
    are many and alike: their embeddings are half as wide as those of nodes.
    """

    def __init__(self, channel_features: int, hidden: int) -> None:
        super().__init__()
        width = max(hidden // 2, 1)
        self.leaf = mlp(channel_features, width, width)
        self.centre = nn.Linear(width, width)
        self.update = nn.Linear(width, width)
        self.out = nn.Sequential(nn.Linear(width, hidden), nn.LayerNorm(hidden))

    def forward(self, channel_x: Tensor, channel_index: Tensor, nodes: int) -> Tensor:
        """Return one embedding per node, [N, H]; nodes without channels get that of none."""
        leaf = self.leaf(channel_x)  # [C, H]
        centre = self.centre(pooled_mean(leaf, channel_index, nodes))  # [N, H]
        leaf = torch.relu(self.update(leaf) + centre.index_select(0, channel_index))
        return self.out(pooled_mean(leaf, channel_index, nodes))


class Encoder(nn.Module):
    """Reads a graph, or several joined by `collate`, into node embeddings; of any size.

    Stage 1, with `multi_stage`: the channels of each node. Stage 2: message passing between the
    nodes along the edges.
    """

    def __init__(self, spec: ObservationSpec, settings: EncoderSettings) -> None:
        super().__init__()
        self.settings = settings
        self.stem = nn.Linear(spec.node_features, settings.hidden)
        staged = settings.encoder == "multi_stage" and spec.channel_features > 0
        self.channels = ChannelEncoder(spec.channel_features, settings.hidden) if staged else None
        self.convs = nn.ModuleList(
            GatedConv(settings.hidden, spec.edge_features) for _ in range(settings.layers)
        )
        self.norm = nn.LayerNorm(settings.hidden)

    def forward(self, data: Data) -> Tensor:
        """Return the embeddings of all nodes, [N, H]."""
        seen = torch.zeros_like if self.settings.blind else torch.Tensor.float
        h = self.stem(seen(data.x))
        if self.channels is not None:
            h = h + self.channels(seen(data.channel_x), data.channel_index, len(h))
        edges, attributes = data.edge_index, seen(data.edge_attr)
        if not self.settings.message_passing:
            edges, attributes = edges[:, :0], attributes[:0]
        for conv in self.convs:
            h = conv(h, edges, attributes)
        return self.norm(h)


ENCODERS: Mapping[str, Callable[[ObservationSpec, EncoderSettings], nn.Module]] = {
    "plain": Encoder,
    "multi_stage": Encoder,
}


def build_encoder(spec: ObservationSpec, settings: EncoderSettings) -> nn.Module:
    """Return the encoder that the settings name: a key of ENCODERS, or `package.module:name`.

    Whatever it is maps a graph, or several joined by `collate`, to embeddings `[N, hidden]`.
    """
    return named(settings.encoder, ENCODERS, "encoder")(spec, settings)
