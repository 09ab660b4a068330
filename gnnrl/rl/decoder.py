"""An encoder whose decoder unrolls over the decisions (AGMC: Yu, Mazaheri & Jannesari 2021)."""

# N: nodes   G: graphs   S: steps of the longest unrolling   H: hidden width

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import global_mean_pool
from torch_geometric.utils import to_dense_batch

from gnnrl.rl.gnn import Encoder
from gnnrl.rl.observation import ObservationSpec
from gnnrl.rl.settings import EncoderSettings


class Decoder(nn.Module):
    """An LSTM cell that takes one step for each decision, in their order.

    It starts from the embedding of the graph. At a step it reads the embedding of the decided node
    and the previous action. Where that is not known, since all is decided at once, it reads what
    it proposes itself.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.start = nn.Linear(hidden, 2 * hidden)
        self.cell = nn.LSTMCell(hidden + 1, hidden)
        self.propose = nn.Linear(hidden, 1)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, nodes: Tensor, pooled: Tensor, taken: Tensor) -> Tensor:
        """Return what each step adds to the embedding of its node, `[G, S, H]`.

        nodes `[G, S, H]`: to be decided, in order.  pooled `[G, H]`: the graphs.
        taken `[G, S]`: the action on each node, NaN where it is not known yet.
        """
        memory, hidden = torch.tanh(self.start(pooled)).chunk(2, dim=1)
        previous, states = torch.ones_like(taken[:, 0]), []
        for node, action in zip(nodes.unbind(1), taken.unbind(1), strict=True):
            step = torch.cat([node, 2 * previous.unsqueeze(1) - 1], dim=1)
            hidden, memory = self.cell(step, (hidden, memory))
            states.append(hidden)
            proposed = torch.sigmoid(self.propose(hidden)).squeeze(1)
            previous = torch.where(action.isnan(), proposed, action)
        return self.norm(torch.stack(states, dim=1))


class EncoderDecoder(Encoder):
    """Reads a graph as `Encoder` does, then unrolls a decoder over its decisions.

    Decisions of earlier steps (`decided_index`, `decided`) are unrolled first, with the actions
    that were taken. The embeddings of decided nodes then depend on their order. Without message
    passing, an ablation, nodes know nothing of each other and nothing is unrolled.
    """

    def __init__(self, spec: ObservationSpec, settings: EncoderSettings) -> None:
        super().__init__(spec, settings)
        self.decoder = Decoder(settings.hidden)

    def forward(self, data: Data) -> Tensor:
        """Return the embeddings of all nodes, `[N, H]`."""
        h = super().forward(data)
        if not self.settings.message_passing:
            return h
        batch = (
            data.batch if data.get("batch") is not None else data.decision_index.new_zeros(len(h))
        )
        earlier = data.get("decided_index", data.decision_index[:0])
        actions = data.get("decided", h.new_zeros(0))
        order = torch.cat([earlier, data.decision_index])
        taken = torch.cat([actions, h.new_full(data.decision_index.shape, torch.nan)])
        by_graph = batch[order].argsort(stable=True)
        order, taken = order[by_graph], taken[by_graph]
        graphs = int(batch.max()) + 1
        nodes, real = to_dense_batch(h[order], batch[order], batch_size=graphs)
        known, _ = to_dense_batch(taken, batch[order], torch.nan, batch_size=graphs)
        states = self.decoder(nodes, global_mean_pool(h, batch, graphs), known)
        return h.index_add(0, order, states[real])
