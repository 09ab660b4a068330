"""Subsets of decisions of a fixed size: what is required of one, what is wrong, how to draw it.

A subset is drawn in order: first `least[p]` of every part p, then the rest from all that is left,
each time with chances in proportion to exp(score) among those not drawn yet (Plackett 1975; Luce
1959).  Adding Gumbel noise to the scores and taking the largest draws the same (Yellott 1977; Kool
et al. 2019, Gumbel-top-k).
"""

# A: decisions   P: parts   K: chosen in all

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data


@dataclass(frozen=True)
class Choice:
    """The constraints of a subset.

    keep: its size.  part [A]: the part that each decision belongs to, int64.  least [P]: the
    minimum of each part, int64.
    """

    keep: int
    part: Tensor
    least: Tensor

    @classmethod
    def of(cls, observation: Data) -> Choice:
        """Read it off an observation."""
        return cls(int(observation.keep), observation.part, observation.least)

    @property
    def size(self) -> int:
        """The number of decisions."""
        return len(self.part)


def subset_fault(observation: Data) -> str | None:
    """Return in one clause what an observation lacks for choosing a subset; None: nothing."""
    missing = [k for k in ("keep", "part", "least") if not isinstance(observation.get(k), Tensor)]
    if missing:
        return f"has no tensor {', '.join(missing)}, which a subset needs"
    size = observation.decision_index.numel()
    score = observation.get("score")
    for key, values in (("part", observation.part), ("score", score)):
        if values is not None and tuple(values.shape) != (size,):
            return f"has {key} of shape {tuple(values.shape)}, expected [{size}]"
    if observation.keep.numel() != 1 or observation.least.ndim != 1:
        return "has a keep that is not one number, or a least that is not one row"
    choice = Choice.of(observation)
    parts = len(choice.least)
    if int(choice.part.min()) < 0 or int(choice.part.max()) >= parts:
        return f"has a part outside of the {parts} of least"
    room = torch.bincount(choice.part, minlength=parts)
    if bool((choice.least < 0).any()) or bool((choice.least > room).any()):
        return "asks for more of a part than there is, or for less than nothing"
    least = int(choice.least.sum())
    if not least <= choice.keep <= size or choice.keep < 1:
        return f"asks for {choice.keep} of {size} decisions, {least} of them for its parts"
    return None


def choice_fault(chosen: np.ndarray, choice: Choice) -> str | None:
    """Return in one clause which constraint a subset, bool [A], violates; None: none."""
    if int(chosen.sum()) != choice.keep:
        return f"it chooses {int(chosen.sum())}, expected exactly {choice.keep}"
    found = torch.bincount(choice.part[torch.from_numpy(chosen)], minlength=len(choice.least))
    short = (found < choice.least).nonzero().squeeze(1).tolist()
    if short:
        wanted = int(choice.least[short[0]])
        return f"it chooses {int(found[short[0]])} of part {short[0]}, expected at least {wanted}"
    return None


def best(scores: Tensor, choice: Choice) -> Tensor:
    """Return the subset of the highest scores [A], in the order of drawing: indices [K]."""
    first = _of_parts(scores, choice)
    return torch.cat([first, _others(scores, first, choice)])


def draw(scores: Tensor, choice: Choice, generator: torch.Generator) -> Tensor:
    """Draw a subset by scores [A] (Gumbel-top-k), in the order of drawing: indices [K]."""
    first = _of_parts(scores + gumbel(scores, generator), choice)
    return torch.cat([first, _others(scores + gumbel(scores, generator), first, choice)])


def log_prob(scores: Tensor, order: Tensor, choice: Choice) -> Tensor:
    """Return the log-probability of each draw of a subset in this order [K], in nats: [K].

    Their sum is that of the ordered subset (Plackett 1975).  Also scores [B, A], order [B, K].
    """
    single = scores.ndim == 1
    scores, order = scores.reshape(-1, scores.shape[-1]), order.reshape(-1, order.shape[-1])
    start = int(choice.least.sum())
    terms = [_within(scores, part) for part in _split(order[:, :start], choice)]
    drawn = torch.zeros_like(scores, dtype=torch.bool).scatter(1, order[:, :start], True)
    rest = scores.masked_fill(drawn, -torch.inf)
    terms.append(_terms(rest, order[:, start:]))
    found = torch.cat(terms, dim=1)
    return found[0] if single else found


def inclusion(scores: Tensor, choice: Choice) -> Tensor:
    """Return approximate inclusion probabilities [A], exact as the number of decisions grows.

    A decision is chosen when its Gumbel-perturbed score exceeds a threshold, and among many the
    threshold hardly varies: p_i = 1 - exp(-exp(score_i - t)), sum_i p_i = K.  It is
    differentiable in scores [A]; the minimum of parts is ignored.
    """
    with torch.no_grad():
        low, high = scores.min() - 30.0, scores.max() + 30.0
        for _ in range(60):
            middle = (low + high) / 2
            enough = _above(scores - middle).sum() >= choice.keep
            low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
        rate = torch.exp(scores - low)
        slope = rate * torch.exp(-rate)
        slope = slope / slope.sum().clamp(min=1e-12)
    threshold = low + (slope * (scores - scores.detach())).sum()  # implicit differentiation
    return _above(scores - threshold)


def as_mask(order: Tensor, size: int) -> np.ndarray:
    """Return the subset of indices [K] as an action, bool [A]."""
    return torch.zeros(size, dtype=torch.bool).index_fill(0, order, True).numpy()


def gumbel(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return standard Gumbel noise in the shape of `like`."""
    uniform = torch.rand(like.shape, generator=generator, dtype=torch.float64)
    return -torch.log(-torch.log(uniform.clamp(1e-300, 1 - 1e-16))).to(like.dtype)


def _above(difference: Tensor) -> Tensor:
    return -torch.expm1(-torch.exp(difference.clamp(max=30.0)))


def _of_parts(keys: Tensor, choice: Choice) -> Tensor:
    """The largest `least[p]` of every part, part after part."""
    chosen = [torch.zeros(0, dtype=torch.long)]
    for part, count in enumerate(choice.least.tolist()):
        if count:
            members = (choice.part == part).nonzero().squeeze(1)
            chosen.append(members[keys[members].argsort(descending=True, stable=True)[:count]])
    return torch.cat(chosen)


def _others(keys: Tensor, first: Tensor, choice: Choice) -> Tensor:
    """The largest of all that are not among the first."""
    left = keys.index_fill(0, first, -torch.inf)
    return left.argsort(descending=True, stable=True)[: choice.keep - len(first)]


def _split(order: Tensor, choice: Choice) -> list[tuple[Tensor, Tensor]]:
    """The draws of each part [B, n], with the members of the part."""
    parts = [p for p, count in enumerate(choice.least.tolist()) if count]
    draws = order.split([int(choice.least[p]) for p in parts], dim=1) if parts else ()
    members = [(choice.part == p).nonzero().squeeze(1) for p in parts]
    return list(zip(draws, members, strict=True))


def _within(scores: Tensor, part: tuple[Tensor, Tensor]) -> Tensor:
    draws, members = part
    outside = torch.ones(scores.shape[1], dtype=torch.bool).index_fill(0, members, False)
    return _terms(scores.masked_fill(outside, -torch.inf), draws)


def _terms(scores: Tensor, order: Tensor) -> Tensor:
    """Score of each draw less the log of the sum over all that were not drawn before it [B, n]."""
    drawn = scores.gather(1, order)  # [B, n]
    never = scores.scatter(1, order, -torch.inf).logsumexp(1, keepdim=True)  # [B, 1]
    backwards = torch.cat([never, drawn.flip(1)], dim=1)
    left = backwards.logcumsumexp(1)[:, 1:].flip(1)
    return drawn - left
