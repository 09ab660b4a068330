"""REINFORCE on subsets: scores of decisions, drawn from by Gumbel-top-k."""

# A: decisions   B: episodes on one graph   K: chosen in all

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from gnnrl.agents.actor import seeded
from gnnrl.agents.additive import Additive
from gnnrl.agents.settings import split
from gnnrl.rl import subsets
from gnnrl.rl.gnn import EncoderSettings
from gnnrl.rl.observation import ObservationSpec, digest, distinct
from gnnrl.rl.policy import Policy
from gnnrl.rl.rollout import Decision, Rollout, Transition, require_single_steps
from gnnrl.settings import NotNegative, Positive, Settings, Share, Switch


class PlackettLuceSettings(Settings):
    """Policy gradient on subsets; the defaults are for a hundred to some thousand evaluations."""

    learning_rate: Positive = 2e-3
    """Of the network that scores decisions by their features."""
    table_learning_rate: NotNegative = 0.05
    """Of a score for each decision by itself; 0: none."""
    ent_coef: NotNegative = 0.0
    """Weight of the entropy in the loss."""
    max_grad_norm: Positive = 1.0
    """Gradients are clipped to this norm."""
    credit: Switch = True
    """Estimate the value of single decisions; false: the baseline alone."""
    credit_decay: Share = 0.995
    """Weight of a subset for every update since it was tried."""
    freeze_encoder: Switch = False
    """Train the heads only, for an agent from another network."""


class PlackettLuce:
    """One gradient step per batch; no critic.

    A decision's score is what the network makes of its node (a perceptron, or a graph neural
    network with messages) plus a number of its own.  What is executed is what was drawn, and its
    log-probability is that of the draws in their order.

    Baseline: the mean of the other episodes of the batch (leave one out).  With `credit`, a linear
    model of the reward takes the part of the reward that it explains, and its expectation under the
    policy is differentiated instead (a control variate: Gu et al. 2017, Q-Prop, Eq. 8), which has
    the same gradient and far less noise: one number no longer has to be shared by all decisions.
    """

    def __init__(
        self,
        spec: ObservationSpec,
        settings: PlackettLuceSettings | None = None,
        encoder: EncoderSettings | None = None,
        seed: int = 0,
    ) -> None:
        self.settings = settings or PlackettLuceSettings()
        shape = encoder or EncoderSettings()
        self.policy = seeded(lambda: Policy(spec, shape, torch.zeros(1)), seed)
        self.policy.embed.requires_grad_(not self.settings.freeze_encoder)
        self.policy.critic.requires_grad_(False)
        self.learned = [p for p in self.policy.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.learned, lr=self.settings.learning_rate)
        self.table: Tensor | None = None  # [A] of the graph first learned from
        self.table_of = ""
        self.credit: dict[str, Additive] = {}

    def scores(self, graph: Data) -> Tensor:
        """The score of each decision [A], float64."""
        found = self.policy([graph]).params[:, 0].double()
        known = self.table is not None and digest(graph) == self.table_of
        return found + self.table if known else found

    @torch.no_grad()
    def act(
        self, observations: Sequence[Data], generator: torch.Generator, greedy: bool = False
    ) -> list[Decision]:
        """Draw a subset for each observation; greedy: the highest scores."""
        graphs, place = distinct(observations)
        scores = [self.scores(graph) for graph in graphs]
        asked = [subsets.Choice.of(graph) for graph in graphs]
        decisions = []
        for which in place.tolist():
            ask, score = asked[which], scores[which]
            order = subsets.best(score, ask) if greedy else subsets.draw(score, ask, generator)
            log_prob = subsets.log_prob(score, order, ask).sum().reshape(1)
            decisions.append(Decision(subsets.as_mask(order, ask.size), order, log_prob))
        return decisions

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Take one step up the gradient of the expected reward."""
        steps = require_single_steps(rollout, "reinforce")
        graphs, place = distinct([step.observation for step in steps])
        self._prepare(graphs[0])
        losses, entropies = [], []
        for which, graph in enumerate(graphs):
            own = [steps[n] for n in (place == which).nonzero().squeeze(1).tolist()]
            loss, entropy = self._loss(graph, own)
            losses.append(loss * len(own) / len(steps))
            entropies.append(entropy.detach() * len(own) / len(steps))
        self.optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        nn.utils.clip_grad_norm_(self.learned, self.settings.max_grad_norm)
        self.optimizer.step()
        return {"entropy": float(torch.stack(entropies).sum())}

    def _loss(self, graph: Data, steps: Sequence[Transition]) -> tuple[Tensor, Tensor]:
        """What descends as the expected reward on one graph rises; the entropy of the chances."""
        ask, scores = subsets.Choice.of(graph), self.scores(graph)
        orders = torch.stack([_order(step) for step in steps])  # [B, K]
        rewards = torch.tensor([step.reward for step in steps], dtype=torch.float64)
        scale = rewards.std(correction=0).clamp(min=1e-8)
        chances = subsets.inclusion(scores, ask)
        gain = scores.new_zeros(())
        left = rewards
        if self.settings.credit:
            model = self.credit.setdefault(digest(graph), Additive(self.settings.credit_decay))
            chosen = torch.zeros(len(orders), ask.size, dtype=torch.bool).scatter(1, orders, True)
            model.add(chosen, rewards, ask.part)
            left = rewards - model.predicted(chosen)
            if model.value is not None:
                gain = (chances * model.value).sum() / scale
        others = (left.sum() - left) / max(len(left) - 1, 1)
        log_prob = subsets.log_prob(scores.expand(len(orders), -1), orders, ask).sum(1)
        gain = gain + ((left - others) / scale * log_prob).mean()
        entropy = torch.special.entr(chances) + torch.special.entr(1 - chances)
        return -gain - self.settings.ent_coef * entropy.sum(), entropy.mean()

    def _prepare(self, graph: Data) -> None:
        """Give every decision of the first graph a number of its own."""
        if self.table is None and self.settings.table_learning_rate > 0:
            size = graph.decision_index.numel()
            self.table, self.table_of = self._new_table(size), digest(graph)

    def _new_table(self, size: int) -> Tensor:
        table = torch.zeros(size, dtype=torch.float64, requires_grad=True)
        self.optimizer.add_param_group({"params": [table], "lr": self.settings.table_learning_rate})
        return table

    def state_dict(self) -> dict[str, Any]:
        """Return policy, table, optimiser and what was tried."""
        return {
            "policy": self.policy.state_dict(),
            "table": None if self.table is None else self.table.detach().clone(),
            "table_of": self.table_of,
            "optimizer": self.optimizer.state_dict(),
            "credit": {graph: model.state_dict() for graph, model in self.credit.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`."""
        self.policy.load_state_dict(state["policy"])
        if state["table"] is not None:
            if self.table is None:
                self.table = self._new_table(len(state["table"]))
            with torch.no_grad():
                self.table.copy_(state["table"])
        self.table_of = state["table_of"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.credit = {graph: Additive(self.settings.credit_decay) for graph in state["credit"]}
        for graph, model in self.credit.items():
            model.load_state_dict(state["credit"][graph])


def _order(step: Transition) -> Tensor:
    assert step.decision.raw is not None
    return step.decision.raw


def build(spec: ObservationSpec, seed: int, **parameters: Any) -> PlackettLuce:
    """Return the agent with these parameters, its own and the encoder's."""
    own, encoder = split(parameters, PlackettLuceSettings, EncoderSettings)
    return PlackettLuce(spec, own, encoder, seed)
