"""An encoder with heads that every decision node shares: a policy for graphs of any size."""

# N: nodes   A: decisions of the G different graphs   B: observations   T: decisions of all B
# H: hidden width   P: parameters of the distribution of one decision

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import global_mean_pool

from gnnrl.errors import UserError
from gnnrl.rl.gnn import EncoderSettings, build_encoder, mlp, start_near
from gnnrl.rl.observation import ObservationSpec, collate, distinct


@dataclass(frozen=True)
class PolicyOutput:
    """What a policy computes for B observations with T decisions in all.

    params [T, P]: of the distribution of each decision.  owner [T]: its observation, ascending.
    mask [T]: which decisions are allowed.  values [B]: expected returns.
    """

    params: Tensor
    owner: Tensor
    mask: Tensor
    values: Tensor

    @property
    def sizes(self) -> list[int]:
        """The number of decisions of each observation."""
        return torch.bincount(self.owner, minlength=len(self.values)).tolist()


def repeat_decisions(graphs: Batch, place: Tensor) -> tuple[Tensor, Tensor]:
    """Repeat the decisions of G graphs for B observations; `place [B]` is the graph of each.

    Returns the index of each of the T among the decisions of the graphs, and its observation.
    """
    sizes = torch.bincount(graphs.decision_index_batch, minlength=graphs.num_graphs)
    starts = torch.cumsum(sizes, 0) - sizes
    wanted = sizes[place]  # [B]
    owner = torch.repeat_interleave(torch.arange(len(place)), wanted)
    first = torch.cumsum(wanted, 0) - wanted
    return torch.arange(len(owner)) - (first - starts[place])[owner], owner


class Embeddings(nn.Module):
    """The encoder and the inputs of every head: embeddings of decided nodes and of graphs."""

    def __init__(self, spec: ObservationSpec, settings: EncoderSettings) -> None:
        super().__init__()
        self.encoder = build_encoder(spec, settings)
        self.settings = settings

    def forward(self, graphs: Batch) -> tuple[Tensor, Tensor]:
        """Return the decided nodes [A, 2H] and the graphs [G, H]."""
        h = self.encoder(graphs)  # [N, H]
        if h.shape != (len(graphs.x), self.settings.hidden):
            raise UserError(
                f"encoder {self.settings.encoder} gave embeddings {tuple(h.shape)}, expected "
                f"{(len(graphs.x), self.settings.hidden)}: one of width hidden per node"
            )
        pooled = global_mean_pool(h, graphs.batch, graphs.num_graphs)
        around = pooled[graphs.decision_index_batch]
        if not self.settings.message_passing:  # then a node knows nothing of its graph
            around = torch.zeros_like(around)
        return torch.cat([h[graphs.decision_index], around], dim=1), pooled


class Policy(nn.Module):
    """Actor and critic on one encoder."""

    def __init__(self, spec: ObservationSpec, settings: EncoderSettings, bias: Tensor) -> None:
        """bias [P]: the parameters that every decision starts near, whatever its features."""
        super().__init__()
        hidden = settings.hidden
        self.embed = Embeddings(spec, settings)
        self.actor = mlp(2 * hidden, hidden, len(bias))
        self.critic = mlp(hidden, hidden, 1)
        start_near(self.actor, bias, 0.01)
        start_near(self.critic, torch.zeros(1), 0.1)

    def forward(self, observations: Sequence[Data]) -> PolicyOutput:
        """Evaluate the policy on B observations; equal ones are encoded once."""
        graphs, place = distinct(observations)
        return self.output(collate(graphs), place)

    def output(self, graphs: Batch, place: Tensor) -> PolicyOutput:
        """Evaluate the policy on B observations, each one of the joined graphs: `place [B]`."""
        decided, pooled = self.embed(graphs)
        which, owner = repeat_decisions(graphs, place)
        mask = graphs.get("action_mask")
        return PolicyOutput(
            params=self.actor(decided)[which],
            owner=owner,
            mask=torch.ones_like(owner, dtype=torch.bool) if mask is None else mask[which],
            values=self.critic(pooled).squeeze(1)[place],
        )
