"""REINFORCE (Williams 1992) on subsets, drawn by the scores of decisions (Gumbel-top-k)."""

# A: decisions   B: episodes on one graph   K: chosen in all

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from gnnrl.agents.actor import PolicyAgent
from gnnrl.agents.additive import Additive
from gnnrl.agents.settings import PlackettLuceSettings, split
from gnnrl.rl import subsets
from gnnrl.rl.observation import ObservationSpec, distinct, structure
from gnnrl.rl.rollout import Decision, Rollout, Transition, require_single_steps
from gnnrl.rl.settings import EncoderSettings


class PlackettLuce(PolicyAgent):
    """One gradient step per batch; no critic.

    A decision's score is the network's output for its node plus an entry of a table of its own.
    The log-probability of an action is that of the draws in their order.

    Baseline: the mean of the other episodes of the batch (leave one out).  With `credit`, a linear
    model of the reward takes the part of the reward that it explains, and its expectation under the
    policy is differentiated instead (a control variate: Gu et al. 2017, Q-Prop, Eq. 8), which has
    the same gradient and far less noise: one number no longer has to be shared by all decisions.
    """

    STATE = ("policy", "table", "table_of", "optimizer", "credit")

    def __init__(
        self,
        spec: ObservationSpec,
        settings: PlackettLuceSettings | None = None,
        encoder: EncoderSettings | None = None,
        seed: int = 0,
    ) -> None:
        chosen = settings or PlackettLuceSettings()
        super().__init__(spec, chosen, encoder, seed, torch.zeros(1))
        self.table: nn.Parameter | None = None  # [A] of the graph first learned from
        self.table_of = ""
        self.credit: dict[str, Additive] = {}

    def scores(self, graph: Data) -> Tensor:
        """Return the score of each decision, float64 [A]."""
        found = self.policy([graph]).params[:, 0].double()
        known = self.table is not None and structure(graph) == self.table_of
        return found + self.table if known else found

    @torch.no_grad()
    def act(
        self, observations: Sequence[Data], generator: torch.Generator, greedy: bool = False
    ) -> list[Decision]:
        """Draw a subset for each observation; greedy: the highest scores."""
        graphs, place = distinct(observations)
        scores = [self.scores(graph) for graph in graphs]
        choices = [subsets.Choice.of(graph) for graph in graphs]
        decisions = []
        for which in place.tolist():
            choice, score = choices[which], scores[which]
            if greedy:
                order = subsets.best(score, choice)
            else:
                order = subsets.draw(score, choice, generator)
            log_prob = subsets.log_prob(score, order, choice).sum().reshape(1)
            decisions.append(Decision(subsets.as_mask(order, choice.size), order, log_prob))
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
        self.descend(torch.stack(losses).sum())
        return {"entropy": float(torch.stack(entropies).sum())}

    def _loss(self, graph: Data, steps: Sequence[Transition]) -> tuple[Tensor, Tensor]:
        """Return the loss of the episodes on one graph, and the mean entropy of its decisions."""
        choice, scores = subsets.Choice.of(graph), self.scores(graph)
        orders = torch.stack([_order(step) for step in steps])  # [B, K]
        rewards = torch.tensor([step.reward for step in steps], dtype=torch.float64)
        scale = rewards.std(correction=0).clamp(min=1e-8)
        chances = subsets.inclusion(scores, choice)
        gain = scores.new_zeros(())
        left = rewards
        if self.settings.credit:
            model = self.credit.setdefault(structure(graph), Additive(self.settings.credit_decay))
            chosen = torch.zeros(len(orders), choice.size).bool().scatter(1, orders, True)
            model.add(chosen, rewards, choice.part)
            left = rewards - model.predicted(chosen)
            if model.value is not None:
                gain = (chances * model.value).sum() / scale
        others = (left.sum() - left) / max(len(left) - 1, 1)
        log_prob = subsets.log_prob(scores.expand(len(orders), -1), orders, choice).sum(1)
        gain = gain + ((left - others) / scale * log_prob).mean()
        entropy = torch.special.entr(chances) + torch.special.entr(1 - chances)
        return -gain - self.settings.ent_coef * entropy.sum(), entropy.mean()

    def _prepare(self, graph: Data) -> None:
        """Create the table of scores for the first graph."""
        if self.table is None and self.settings.table_learning_rate > 0:
            size = graph.decision_index.numel()
            self.table, self.table_of = self._new_table(size), structure(graph)

    def _new_table(self, size: int) -> nn.Parameter:
        table = nn.Parameter(torch.zeros(size, dtype=torch.float64))
        self.optimizer.add_param_group({"params": [table], "lr": self.settings.table_learning_rate})
        return table

    def _load(self, state: dict[str, Any]) -> None:
        if state["table"] is not None and self.table is None:
            self.table = self._new_table(len(state["table"]))
        self.credit = {graph: Additive(self.settings.credit_decay) for graph in state["credit"]}
        super()._load(state)


def _order(step: Transition) -> Tensor:
    assert step.decision.raw is not None
    return step.decision.raw


def build(spec: ObservationSpec, seed: int, **parameters: Any) -> PlackettLuce:
    """Return the agent with these parameters, its own and the encoder's."""
    own, encoder = split(parameters, PlackettLuceSettings, EncoderSettings)
    return PlackettLuce(spec, own, encoder, seed)
