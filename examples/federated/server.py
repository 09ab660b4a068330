"""The server: it averages what clients sent, entry by entry, and their mean gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

State = dict[str, Tensor]
"""Parameters by name."""


@dataclass(frozen=True)
class Sent:
    """What a client sends: the entries of its parameters that `mask` marks.

    images: how many it trained on.  drift: learning rate times steps, by which its update divides
    into a mean gradient.  numbers: how many it sent, the indices of channels included.
    """

    values: State
    mask: State
    images: int
    drift: float
    numbers: int


def averaged(server: State, sent: Sequence[Sent]) -> State:
    """Return the mean of each entry over the clients that sent it, weighted by their images.

    What nobody sent stays as it is.  Where all is sent this is FedAvg (McMahan et al. 2017).
    """
    found = {}
    for name, old in server.items():
        total, weight = torch.zeros_like(old, dtype=torch.float64), torch.zeros_like(old).double()
        for one in sent:
            share = one.images * one.mask[name].double()
            total += share * one.values[name].double()
            weight += share
        found[name] = torch.where(weight > 0, total / weight.clamp(min=1), old.double()).to(old)
    return found


def drifts(gradient: State, known: State, control: State) -> State:
    """Return what corrects a client's gradients: the mean of all less its own (SCAFFOLD, c - c_i).

    Only on the entries that the client sent last time: of others both are out of date.
    """
    return {name: known[name] * (control[name] - gradient[name]) for name in control}


def mean_gradient(server: State, one: Sent, correction: State) -> State:
    """Return a client's mean gradient on the entries it sent: SCAFFOLD's c_i, by its option II.

    (x - y_i) / (K eta), less the correction.  The server knows all of it without being told.
    """
    return {
        name: one.mask[name] * ((old - one.values[name]) / one.drift - correction[name])
        for name, old in server.items()
    }


def mean_of_clients(gradients: Sequence[State], known: Sequence[State]) -> State:
    """Return the mean over those who sent an entry (Karimireddy et al. 2020: c); 0: nobody did."""
    return {
        name: sum((one[name] for one in gradients), torch.zeros_like(gradients[0][name]))
        / sum(one[name] for one in known).clamp(min=1)
        for name in gradients[0]
    }
