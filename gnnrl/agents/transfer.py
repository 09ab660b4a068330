"""Transfer of a policy from one network to another."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from gnnrl.agents.pretrained import SHIPPED, read_pretrained
from gnnrl.errors import UserError
from gnnrl.rl.agent import Agent
from gnnrl.sealed import read_state


def adopt(agent: Agent, path: str | Path) -> None:
    """Give a new agent the policy that another search saved in `path`.

    The policy's parts are shared by all decisions, so that the graphs may differ in size. What
    belongs to the other search (optimiser, best episodes, credit) is left behind.
    """
    policy = getattr(agent, "policy", None)
    if not isinstance(policy, torch.nn.Module):
        raise UserError(
            f"agent_from {path}: {type(agent).__name__} has no policy that could be taken over; "
            "choose ppo, or set agent_from to null"
        )
    try:
        state = (
            read_pretrained(path)[0] if path == SHIPPED else upgraded(read_state(path)["policy"])
        )
        if not all(value.isfinite().all() for value in state.values()):
            raise UserError("its policy holds NaN or infinite values")
    except FileNotFoundError:
        raise UserError(
            f"agent_from {path}: there is no such file; name the agent.pt of a search"
        ) from None
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"agent_from {path}: not a saved agent ({type(error).__name__}: {error}); name the "
            "agent.pt of a search"
        ) from None
    _refuse_other(policy.state_dict(), state, path)
    policy.load_state_dict(state)


def _refuse_other(own: Mapping[str, Tensor], found: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise `UserError` where the tensors of two policies differ in name or shape."""
    names = sorted(own.keys() | found.keys())
    shapes = [
        [tuple(s[name].shape) if name in s else "none" for s in (own, found)] for name in names
    ]
    differ = [(name, *both) for name, both in zip(names, shapes, strict=True) if both[0] != both[1]]
    if differ:
        name, wanted, got = differ[0]
        raise UserError(
            f"agent_from {path}: another kind of policy ({len(differ)} of {len(names)} tensors "
            f"differ, the first is {name}: expected {wanted}, got {got}); use the agent, encoder "
            "and gnn settings that it was saved with"
        )


GATED = re.compile(r"(.*)convs\.(\d+)\.(norm|node|sender|edge)\.(weight|bias)")


def upgraded(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a policy saved before 0.2 under today's names; others as they are.

    The gated convolution computed the same function: `node` was W_1 and W_3, `sender` W_2 and W_4.
    """
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        match = GATED.fullmatch(name)
        start, place, layer, kind = match.groups() if match else ("", "", "", "")
        conv = f"{start}convs.{place}."
        if layer == "norm":
            found[f"{start}norms.{place}.{kind}"] = value
        elif layer == "edge":
            found[f"{conv}lin_edge.weight"] = value
        elif layer == "sender":
            found[f"{conv}lin_value.weight"], found[f"{conv}lin_query.weight"] = value.chunk(2)
            none = value.new_zeros(len(value) // 2)
            found[f"{conv}lin_value.bias"] = found[f"{conv}lin_query.bias"] = none
        elif layer == "node":
            skip = "lin_skip.weight" if kind == "weight" else "bias"
            found[conv + skip], found[f"{conv}lin_key.{kind}"] = value.chunk(2)
        else:
            found[name] = value
    return found
