"""A graph neural network that reads an observation into one embedding per node."""

# N: nodes   E: edges   C: channels   F, D, K: their features   H: hidden width

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import ResGatedGraphConv
from torch_geometric.utils import scatter

from gnnrl.rl.observation import ObservationSpec
from gnnrl.rl.settings import EncoderSettings


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Return a perceptron with one hidden layer."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


@torch.no_grad()
def start_near(head: nn.Sequential, bias: Tensor, scale: float) -> None:
    """Set the bias of the last layer and scale its weights: outputs start near the bias."""
    last = head[-1]
    assert isinstance(last, nn.Linear)
    last.weight.mul_(scale)
    last.bias.copy_(bias)


class GatedConv(ResGatedGraphConv):
    """Residual gated graph convolution (Bresson & Laurent 2017, Eq. 11) on nodes with typed edges.

    out_i = W_1 h_i + sum_j sigmoid(W_3 h_i + W_4 h_j + gate_ij) * (W_2 h_j + value_ij), where
    gate_ij and value_ij are linear in the features of the edge. Nodes are projected once each;
    with `edge_dim`, the base class projects them once for every edge, which takes twice the time.
    """

    def __init__(self, hidden: int, edge_features: int) -> None:
        super().__init__(hidden, hidden)
        self.lin_edge = nn.Linear(edge_features, 2 * hidden, bias=False)

    def message(self, k_i: Tensor, q_j: Tensor, v_j: Tensor, edge_attr: Tensor) -> Tensor:
        """Return the message over each edge, [E, H], from edge features [E, D]."""
        value, gate = self.lin_edge(edge_attr).chunk(2, dim=1)
        return self.act(k_i + q_j + gate) * (v_j + value)


class ChannelEncoder(nn.Module):
    """Stage 1: the channels of each node, joined in a star, read into one embedding per node.

    Two rounds: the node receives the mean of its channels, then each channel receives the node.
    Embeddings of channels are half as wide as those of nodes.
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
        centre = self.centre(scatter(leaf, channel_index, dim_size=nodes, reduce="mean"))  # [N, H]
        leaf = torch.relu(self.update(leaf) + centre.index_select(0, channel_index))
        return self.out(scatter(leaf, channel_index, dim_size=nodes, reduce="mean"))


class Encoder(nn.Module):
    """Reads a graph, or several joined by `collate`, into node embeddings; of any size.

    Stage 1, but in `plain`: the channels of each node. Stage 2: message passing between the
    nodes along the edges.
    """

    def __init__(self, spec: ObservationSpec, settings: EncoderSettings) -> None:
        super().__init__()
        self.settings = settings
        self.stem = nn.Linear(spec.node_features, settings.hidden)
        staged = settings.encoder != "plain" and spec.channel_features > 0
        self.channels = ChannelEncoder(spec.channel_features, settings.hidden) if staged else None
        width, edges = settings.hidden, spec.edge_features
        rounds = range(settings.layers)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in rounds)
        self.convs = nn.ModuleList(GatedConv(width, edges) for _ in rounds)
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
        for norm, conv in zip(self.norms, self.convs, strict=True):
            h = h + torch.relu(conv(norm(h), edges, attributes))
        return self.norm(h)
