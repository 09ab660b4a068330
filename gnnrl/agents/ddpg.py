"""Deep deterministic policy gradient (Lillicrap et al. 2016), as AMC (He et al. 2018) uses it."""

# B: transitions   A: decisions of one   T: decisions of all B   H: hidden width

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import global_mean_pool

from gnnrl.agents.actor import freeze, seeded
from gnnrl.agents.buffers import Scale
from gnnrl.agents.replay import Replay, Stored
from gnnrl.agents.saved import Saved
from gnnrl.agents.settings import DDPGSettings, split
from gnnrl.errors import UserError
from gnnrl.rl.distributions import truncated_normal
from gnnrl.rl.gnn import mlp, start_near
from gnnrl.rl.observation import ObservationSpec, collate, distinct
from gnnrl.rl.policy import Embeddings, repeat_decisions
from gnnrl.rl.rollout import Decision, Rollout
from gnnrl.rl.settings import EncoderSettings

SATURATION = 0.1  # weight of the actor's squared logits: at the ends its gradient would vanish


class Critic(nn.Module):
    """Q: reads the decided nodes with their actions, pools them, and estimates the return."""

    def __init__(self, spec: ObservationSpec, encoder: EncoderSettings) -> None:
        super().__init__()
        hidden = encoder.hidden
        self.embed = Embeddings(spec, encoder)
        self.node = nn.Linear(2 * hidden, hidden)
        self.action = nn.Linear(2, hidden)  # apart, so that actions weigh as much as nodes
        self.joint = nn.Sequential(nn.ReLU(), nn.Linear(hidden, hidden))
        self.head = mlp(2 * hidden, hidden, 1)

    def forward(self, graphs: Batch, place: Tensor, actions: Tensor) -> Tensor:
        """Value `actions [T]` on B observations, each one of the graphs: [B]."""
        decided, pooled = self.embed(graphs)
        which, owner = repeat_decisions(graphs, place)
        centred = 2 * actions - 1
        shown = torch.stack([centred, centred.square()], dim=1)
        joint = self.joint(self.node(decided)[which] + self.action(shown))  # [T, H]
        size = torch.bincount(owner, minlength=len(place)).sqrt().unsqueeze(1)
        # a mean whose spread does not shrink with the number of decisions
        both = [size * global_mean_pool(joint, owner, len(place)), pooled[place]]
        return self.head(torch.cat(both, dim=1)).squeeze(1)


class Deterministic(nn.Module):
    """The actor: one action in (0, 1) for each decision, starting from `initial_action`."""

    def __init__(
        self, spec: ObservationSpec, encoder: EncoderSettings, initial_action: float
    ) -> None:
        super().__init__()
        self.embed = Embeddings(spec, encoder)
        self.head = mlp(2 * encoder.hidden, encoder.hidden, 1)
        start_near(self.head, torch.logit(torch.tensor([initial_action]), eps=1e-3), 0.01)

    def forward(self, graphs: Batch, place: Tensor) -> tuple[Tensor, Tensor]:
        """Return the actions on B observations and the observation of each: [T], [T]."""
        decided, _ = self.embed(graphs)
        which, owner = repeat_decisions(graphs, place)
        return torch.sigmoid(self.head(decided)).squeeze(1)[which], owner


class DDPG(Saved):
    """Learns a critic of whole actions from all that was tried, and an actor that climbs it.

    Continuous, or binary by thresholding at one half. Explores with truncated normal noise.
    """

    STATE = ("nets", "targets", "optimizers", "replay", "scale", "generator", "acted")

    def __init__(
        self,
        spec: ObservationSpec,
        settings: DDPGSettings | None = None,
        encoder: EncoderSettings | None = None,
        seed: int = 0,
    ) -> None:
        if spec.action_kind == "categorical":
            raise UserError("ddpg: categorical actions have no gradient (use ppo or reinforce)")
        if encoder is not None and encoder.policy != "shared":
            raise UserError(
                f"ddpg: its critic values actions, so search.policy is not for it, got "
                f"{encoder.policy!r}; set it to shared, or take ppo, reinforce or a3c"
            )
        self.settings = settings or DDPGSettings()
        self.binary = spec.action_kind == "binary"
        chosen, start = encoder or EncoderSettings(), self.settings.initial_action
        self.nets = nn.ModuleDict(
            {
                "actor": seeded(lambda: Deterministic(spec, chosen, start), seed),
                "critic": seeded(lambda: Critic(spec, chosen), seed + 1),
            }
        )
        if self.settings.freeze_encoder:
            freeze(self.nets)
        self.targets = copy.deepcopy(self.nets).requires_grad_(False)
        rates = self.settings.actor_learning_rate, self.settings.critic_learning_rate
        self.optimizers = {
            name: torch.optim.Adam(self.learned(name), lr=rate)
            for name, rate in zip(("actor", "critic"), rates, strict=True)
        }
        self.generator = torch.Generator().manual_seed(seed)  # of the replayed transitions
        self.replay, self.scale, self.acted = Replay(self.settings.buffer_size), Scale(), 0

    @property
    def policy(self) -> nn.Module:
        """Actor and critic."""
        return self.nets

    def adopted(self) -> None:
        """Let the target networks start where the others are."""
        self.targets.load_state_dict(self.nets.state_dict())

    def learned(self, name: str) -> list[nn.Parameter]:
        """Return the parameters of the actor or the critic that are not frozen."""
        return [p for p in self.nets[name].parameters() if p.requires_grad]

    @property
    def noise(self) -> float:
        """The present standard deviation of the exploration."""
        after = max(self.acted - self.settings.warmup, 0)
        return self.settings.noise_std * self.settings.noise_decay**after

    @torch.no_grad()
    def act(
        self, observations: Sequence[Data], generator: torch.Generator, greedy: bool = False
    ) -> list[Decision]:
        """Decide on each observation."""
        graphs, place = distinct(observations)
        joined = collate(graphs)
        mean, owner = self.nets["actor"](joined, place)
        if not greedy:
            mean = truncated_normal(mean, self.noise, generator)
            self.acted += len(observations)
        if self.binary:
            mean = mean >= 0.5
            if (mask := joined.get("action_mask")) is not None:
                mean = mean & mask[repeat_decisions(joined, place)[0]]
        sizes = torch.bincount(owner, minlength=len(observations)).tolist()
        return [Decision(action.clone().numpy()) for action in mean.split(sizes)]

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Store the episodes, then take gradient steps on samples of the buffer."""
        settings = self.settings
        self.replay.add(rollout.episodes, settings.gamma if settings.whole_returns else None)
        self.scale.update([episode.reward for episode in rollout.episodes])
        figures: dict[str, float] = {}
        for _ in range(min(settings.updates * len(rollout.transitions), settings.max_updates)):
            figures = self._update(self.replay.sample(settings.batch_size, self.generator))
        return {**figures, "noise": self.noise}

    def _update(self, batch: Sequence[Stored]) -> dict[str, float]:
        graphs, place = distinct([kept.observation for kept in batch])
        joined = collate(graphs)
        actions = torch.cat([kept.action for kept in batch])
        values = self.nets["critic"](joined, place, actions)
        critic_loss = (values - self._goals(batch)).square().mean()
        self._step("critic", critic_loss)
        chosen, _ = self.nets["actor"](joined, torch.arange(len(graphs)))
        value = self.nets["critic"](joined, torch.arange(len(graphs)), chosen).mean()
        saturation = torch.logit(chosen, eps=1e-6).square().mean()
        self._step("actor", SATURATION * saturation - value)
        with torch.no_grad():
            both = zip(self.targets.parameters(), self.nets.parameters(), strict=True)
            for target, parameter in both:
                target.lerp_(parameter, self.settings.tau)
        return {"critic_loss": critic_loss.item(), "value": value.item()}

    @torch.no_grad()
    def _goals(self, batch: Sequence[Stored]) -> Tensor:
        """Return the one-step targets of Q, in units of the scale, [B]."""
        mean, std = self.scale.mean, self.scale.std
        goals = torch.tensor(
            [(kept.reward - mean * (kept.following is None)) / std for kept in batch]
        )
        going = [place for place, kept in enumerate(batch) if kept.following is not None]
        if going:
            graphs, place = distinct([batch[index].following for index in going])
            joined = collate(graphs)
            actions, _ = self.targets["actor"](joined, place)
            following = self.targets["critic"](joined, place, actions)
            goals[going] += self.settings.gamma * following
        return goals

    def _step(self, name: str, loss: Tensor) -> None:
        self.nets.zero_grad()  # the actor's loss passes through the critic
        loss.backward()
        nn.utils.clip_grad_norm_(self.learned(name), self.settings.max_grad_norm)
        self.optimizers[name].step()


def build(spec: ObservationSpec, seed: int, **parameters: Any) -> DDPG:
    """Return the agent with these parameters, its own and the encoder's."""
    own, encoder = split(parameters, DDPGSettings, EncoderSettings)
    return DDPG(spec, own, encoder, seed)
