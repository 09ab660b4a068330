"""An encoder with heads that every decision node shares: a policy for graphs of any size."""

# N: nodes   A: decisions of the G different graphs   B: observations   T: decisions of all B
# H: hidden width   P: parameters of the distribution of one decision

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import global_mean_pool

from gnnrl.errors import UserError
from gnnrl.registry import call, named
from gnnrl.rl.gnn import mlp, start_near
from gnnrl.rl.observation import ObservationSpec, collate, distinct
from gnnrl.rl.settings import ENCODERS, POLICIES, EncoderSettings

DECODER = "encoder.decoder."
"""Start of the names of a decoder's weights: it is a head as to freezing and transfer."""


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
        self.encoder = named(settings.encoder, ENCODERS, "encoder")(spec, settings)
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

    def of_graphs(self) -> dict[str, Tensor]:
        """Return the weights that read graphs, not the decoder's: they suit other heads, too."""
        every = self.state_dict(keep_vars=True)
        return {name: value for name, value in every.items() if not name.startswith(DECODER)}


class ActorCritic(nn.Module, ABC):
    """An actor and a critic: a subclass says in `decide` what they compute of graphs.

    It is made with an `ObservationSpec`, `EncoderSettings` and the bias [P]: the parameters that
    every decision starts near, whatever its features.
    """

    @abstractmethod
    def decide(self, graphs: Batch) -> tuple[Tensor, Tensor]:
        """Return the parameters of all decisions [A, P] and the expected returns [G].

        graphs: joined by `collate`; `decision_index [A]` are the decided nodes.
        """

    def forward(self, observations: Sequence[Data]) -> PolicyOutput:
        """Evaluate the policy on B observations; equal ones are encoded once."""
        graphs, place = distinct(observations)
        return self.output(collate(graphs), place)

    def output(self, graphs: Batch, place: Tensor) -> PolicyOutput:
        """Evaluate the policy on B observations, each one of the joined graphs: `place [B]`."""
        params, values = self.decide(graphs)
        if len(params) != graphs.decision_index.numel() or values.shape != (graphs.num_graphs,):
            raise UserError(
                f"the policy {type(self).__name__} gave parameters {tuple(params.shape)} and "
                f"values {tuple(values.shape)}, expected one row for each of "
                f"{graphs.decision_index.numel()} decisions and {(graphs.num_graphs,)}"
            )
        which, owner = repeat_decisions(graphs, place)
        mask, prior = graphs.get("action_mask"), graphs.get("prior")
        if prior is not None:  # of the first parameter: a mean, or a logit
            params = torch.cat([params[:, :1] + prior.unsqueeze(1), params[:, 1:]], dim=1)
        return PolicyOutput(
            params=params[which],
            owner=owner,
            mask=torch.ones_like(owner, dtype=torch.bool) if mask is None else mask[which],
            values=values[place],
        )


class Policy(ActorCritic):
    """Actor and critic on one encoder."""

    def __init__(self, spec: ObservationSpec, settings: EncoderSettings, bias: Tensor) -> None:
        super().__init__()
        hidden = settings.hidden
        self.embed = Embeddings(spec, settings)
        self.actor = mlp(2 * hidden, hidden, len(bias))
        self.critic = mlp(hidden, hidden, 1)
        start_near(self.actor, bias, 0.01)
        start_near(self.critic, torch.zeros(1), 0.1)

    def decide(self, graphs: Batch) -> tuple[Tensor, Tensor]:
        """Return the parameters of all decisions and the expected returns."""
        decided, pooled = self.embed(graphs)
        return self.actor(decided), self.critic(pooled).squeeze(1)


def build_policy(spec: ObservationSpec, settings: EncoderSettings, bias: Tensor) -> ActorCritic:
    """Return the actor and the critic that the settings name: a key of POLICIES, or your own."""
    make, name = named(settings.policy, POLICIES, "policy"), settings.policy
    policy = call(make, name, spec=spec, settings=settings, bias=bias)
    if not isinstance(policy, ActorCritic):
        raise UserError(
            f"the policy {name} gave a {type(policy).__name__}, expected a subclass of "
            "gnnrl.rl.policy.ActorCritic"
        )
    return policy


def embeddings(policy: nn.Module) -> list[Embeddings]:
    """Return the encoders of a policy, each with the inputs of its heads."""
    return [part for part in policy.modules() if isinstance(part, Embeddings)]
