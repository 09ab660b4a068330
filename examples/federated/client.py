"""A client: it trains on its own images, and its agent selects what it sends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from examples.federated.parts import SHAPE, Digits, Part, parts
from examples.federated.server import Sent, State, drifts, mean_gradient
from gnnrl.agents.pretrained import SHIPPED, encoder
from gnnrl.agents.registry import build_agent
from gnnrl.agents.transfer import adopt
from gnnrl.evaluation.base import Evaluation
from gnnrl.graph.budget import Budget
from gnnrl.graph.extract import extract
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.graph.unit_mapping import kept_indices, kept_units
from gnnrl.pruning.importance import Importance, filters, over_layers
from gnnrl.pruning.plan import PruningPlan
from gnnrl.runtime import generator, seed_everything
from gnnrl.search.env import PruningEnv
from gnnrl.search.loop import search
from gnnrl.search.observations.channels import FEATURES
from gnnrl.search.spaces.channels import ChannelSpace
from gnnrl.settings import Count, Positive, Seed, Settings, Share, Switch

HEAD = "head."


class FederatedSettings(Settings):
    """How clients train and what they send."""

    seed: Seed = 0
    """Of the parts, the first weights and all draws."""
    clients: Count = 10
    """All of them take part in every round."""
    beta: Positive = 0.5
    """Concentration of the Dirichlet distribution: less is less alike."""
    rounds: Count = 15
    """Of training, sending and averaging."""
    epochs: Count = 2
    """Of local training in a round."""
    batch_size: Count = 16
    """Images of a local step."""
    learning_rate: Positive = 0.1
    """Of plain stochastic gradient descent."""
    keep: Share = 0.5
    """Fraction of the shared numbers that a client may send."""
    select: Literal["agent", "uniform", "random"] = "agent"
    """Who selects channels: the client's agent; the same fraction everywhere; chance."""
    local_head: Switch = True
    """Clients keep the last layer for themselves."""
    control: Switch = True
    """Correct local gradients by control variates."""
    evaluations: Count = 8
    """Selections that an agent tries in a round."""


@dataclass(frozen=True, eq=False)
class Client:
    """What a client remembers: its head, its mean gradient on the entries that it sent last time
    (`known`: 1.0) and the state of its agent."""

    head: State
    gradient: State
    known: State
    agent: dict[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class Clients:
    """The parts of all clients and the graph of their network: what a worker has a copy of."""

    settings: FederatedSettings
    parts: list[Part]
    graph: ComputationalGraph

    @classmethod
    def of(cls, settings: FederatedSettings) -> Clients:
        """Make them from the settings."""
        graph = extract(Digits().eval(), torch.zeros(1, *SHAPE))
        return cls(settings, parts(settings.clients, settings.beta, settings.seed), graph)

    def first(self) -> tuple[State, list[Client]]:
        """Return the server's first parameters and the clients before the first round."""
        seed_everything(self.settings.seed)
        weights = {name: value.detach() for name, value in Digits().named_parameters()}
        head = {n: v for n, v in weights.items() if n.startswith(HEAD)}
        server = {n: v for n, v in weights.items() if n not in head or not self.settings.local_head}
        none = {name: torch.zeros_like(value) for name, value in server.items()}
        kept = head if self.settings.local_head else {}
        return server, [Client(kept, none, none) for _ in self.parts]


def visit(
    clients: Clients, which: int, round_: int, client: Client, server: State, control: State
) -> tuple[Client, Sent]:
    """Train a client's network from the server's parameters; return what it sends."""
    settings, part = clients.settings, clients.parts[which]
    draw = generator(settings.seed, f"client {which}, round {round_}")
    correction = drifts(client.gradient, client.known, control)
    trained, steps = local_training(settings, part, server | client.head, correction, draw)
    own = replace(client, head={name: trained[name] for name in client.head})
    plan, state = selected(clients, which, own, server, trained, draw)
    keep = kept_units(clients.graph, plan.kept)
    mask = masks(clients.graph, keep, server)
    values = {name: trained[name] * mask[name] for name in server}
    numbers = sum(int(entries.sum()) for entries in mask.values())
    numbers += 0 if keep.all() else int(keep.sum())
    drift = settings.learning_rate * steps
    sent = Sent(values, mask, len(part.train), drift, numbers)
    if settings.control:
        own = replace(own, gradient=mean_gradient(server, sent, correction), known=mask)
    return replace(own, agent=state), sent


def local_training(
    settings: FederatedSettings,
    part: Part,
    weights: State,
    correction: Mapping[str, Tensor],
    draw: torch.Generator,
) -> tuple[State, int]:
    """Return the parameters after some epochs of gradient descent, and its steps.

    correction: added to the gradient of each parameter named: c - c_i.
    """
    network = Digits()
    network.load_state_dict(weights)
    steps = 0
    for _ in range(settings.epochs):
        for images, labels in part.train.batches(settings.batch_size, generator=draw):
            network.zero_grad()
            F.cross_entropy(network(images), labels).backward()
            with torch.no_grad():
                for name, weight in network.named_parameters():
                    assert weight.grad is not None
                    gradient = weight.grad + correction.get(name, 0.0)
                    weight -= settings.learning_rate * gradient
            steps += 1
    return {name: value.detach() for name, value in network.named_parameters()}, steps


def selected(
    clients: Clients,
    which: int,
    client: Client,
    server: State,
    trained: State,
    draw: torch.Generator,
) -> tuple[PruningPlan, dict[str, Any] | None]:
    """Return the channels whose update is sent, as a plan, and the agent's state afterwards.

    The largest updates of a group come first.  How many channels of each group, the agent decides;
    the reward is minus the loss on the client's validation images, of the server's parameters with
    nothing but these updates.
    """
    settings, graph = clients.settings, clients.graph
    change = Digits()
    change.load_state_dict({n: trained[n] - server.get(n, trained[n]) for n in trained})
    shared = sum(value.numel() for value in server.values())
    whole = sum(value.numel() for value in trained.values())
    budget = Budget(parameters=settings.keep * shared / whole if settings.keep < 1 else 1.0)
    space = ChannelSpace(graph, size_of_update(change, graph), budget)
    if settings.select == "uniform":
        return space.uniform(), None
    if settings.select == "random":
        return space.sample(draw), None
    score = partial(_score, clients, which, server, trained)
    env = PruningEnv(space, lambda plans: [score(plan) for plan in plans])
    shape = encoder("ppo", "channels", FEATURES, "continuous")
    agent = build_agent("ppo", env, seed=settings.seed, freeze_encoder=True, n_epochs=4, **shape)
    if client.agent is None:
        adopt(agent, SHIPPED, "encoder")
    else:
        agent.load_state_dict(client.agent)
    seed = int(torch.randint(2**31, (1,), generator=draw))
    found = search(env, agent, evaluations=settings.evaluations, batch=6, seed=seed)
    return found.plan, agent.state_dict()


def size_of_update(change: nn.Module, graph: ComputationalGraph) -> Importance:
    """Return how much each channel's filters changed, L1."""
    return over_layers(graph, lambda layer: filters(change, layer).abs().sum(1))


def _score(
    clients: Clients, which: int, server: State, trained: State, plan: PruningPlan
) -> Evaluation:
    mask = masks(clients.graph, kept_units(clients.graph, plan.kept), server)
    mixed = trained | {n: torch.where(mask[n] > 0, trained[n], old) for n, old in server.items()}
    images = clients.parts[which].validation
    with torch.no_grad():
        batches = list(images.batches(max(len(images), 1)))
        outputs = [functional_call(Digits(), mixed, (x,)) for x, _ in batches]
        losses = [
            F.cross_entropy(y, labels) for y, (_, labels) in zip(outputs, batches, strict=True)
        ]
    return Evaluation(-float(sum(losses)))


def masks(graph: ComputationalGraph, keep: Any, server: State) -> State:
    """Return which entries of the shared parameters belong to kept units alone, 1.0 or 0.0."""
    indices, found = kept_indices(graph, keep), {}
    for name, value in server.items():
        mask = torch.ones_like(value)
        for axis, kept in indices.get(name, ()):
            stays = torch.zeros(value.shape[axis])
            stays[torch.from_numpy(kept)] = 1.0
            mask *= stays.view([-1 if place == axis else 1 for place in range(value.ndim)])
        found[name] = mask
    return found


def accuracy(part: Part, weights: State) -> float:
    """Return the accuracy on a client's test images."""
    with torch.no_grad():
        right = [
            functional_call(Digits(), weights, (x,)).argmax(1) == labels
            for x, labels in part.test.batches(512)
        ]
    return float(torch.cat(right).float().mean())
