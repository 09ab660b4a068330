"""Transfer of a policy, or of its encoder alone, from one network to another."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from gnnrl.agents.pretrained import SHIPPED, read_pretrained
from gnnrl.agents.saved import Saved
from gnnrl.errors import UserError
from gnnrl.rl.agent import Agent
from gnnrl.rl.policy import DECODER, embeddings
from gnnrl.sealed import read_state, write_state

EMBED = "embed."
"""Start of the names of an encoder and its decoder within an actor or a critic."""


def save_encoder(policy: nn.Module, path: str | Path) -> None:
    """Write the encoder of an agent's policy, without decoder and heads: `adopt` reads the file."""
    write_state(path, {"encoder": encoder_of(policy.state_dict())})


def adopt(agent: Agent, path: str | Path, part: str = "policy") -> None:
    """Give a new agent the policy that another search saved in `path`.

    The policy's parts are shared by all decisions, so that the graphs may differ in size. What
    belongs to the other search (optimiser, best episodes, credit) is left behind.
    part: policy, or encoder: the encoder alone; decoder and heads start anew. It may come from
    another kind of agent, or from a file that `save_encoder` wrote.
    """
    policy = getattr(agent, "policy", None)
    if not isinstance(policy, nn.Module):
        raise UserError(
            f"agent_from {path}: {type(agent).__name__} has no policy that could be taken over; "
            "choose ppo or ddpg, or set agent_from to null"
        )
    try:
        state = read_pretrained(path)[0] if path == SHIPPED else _weights(read_state(path), part)
        if not all(value.isfinite().all() for value in state.values()):
            raise UserError("its policy holds NaN or infinite values")
        if part == "encoder":
            state = encoder_of(state)
    except FileNotFoundError:
        raise UserError(
            f"agent_from {path}: there is no such file; name the agent.pt of a search"
        ) from None
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"agent_from {path}: not a saved agent ({type(error).__name__}: {error}); name the "
            "agent.pt of a search"
        ) from None
    if part == "encoder":
        for embed in embeddings(policy):
            _refuse_other(embed.of_graphs(), state, path, part)
            embed.load_state_dict(state, strict=False)
    else:
        _refuse_other(policy.state_dict(), state, path, part)
        policy.load_state_dict(state)
    if isinstance(agent, Saved):
        agent.adopted()


def _refuse_other(
    own: Mapping[str, Tensor], found: Mapping[str, Tensor], path: str | Path, part: str
) -> None:
    """Raise `UserError` where the tensors of two policies differ in name or shape."""
    names = own.keys() | found.keys()
    differ = [n for n in names if n not in own or n not in found or own[n].shape != found[n].shape]
    if not differ:
        return
    wanted, got = made_with(own), made_with(found)
    known = [key for key in wanted if key in got and got[key] != wanted[key]]
    if known:
        saved, needed, settings = (
            " and ".join(f"{key}{word}{values[key]}" for key in known)
            for word, values in ((" ", got), (" ", wanted), (" to ", got))
        )
        raise UserError(
            f"agent_from {path}: the agent was saved with {saved}, expected {needed}; set "
            f"{settings}, or name the agent.pt of another search"
        )
    alike = part == "policy" and wanted and wanted == got
    other = ", or set search.agent_part to encoder" if alike else ""
    raise UserError(
        f"agent_from {path}: another kind of policy ({len(differ)} of {len(names)} tensors "
        "differ); use the agent, encoder and gnn settings that it was saved with" + other
    )


OURS = {"stem", "channels", "convs", "norms", "norm", "decoder"}
"""The parts of the encoders of this library."""

PART = re.compile(r"(?:.*\.)?encoder\.(\w+)\.(.*)")


def made_with(weights: Mapping[str, Tensor]) -> dict[str, object]:
    """Return the settings that the weights of a policy tell, by key; none of a user's encoder."""
    found = {match.groups(): weights[name] for name in weights if (match := PART.fullmatch(name))}
    parts = {part for part, _ in found}
    if not {"stem", "norm"} <= parts <= OURS:
        return {}
    kinds = {"encoder_decoder": "decoder", "multi_stage": "channels", "plain": "stem"}
    return {
        "search.encoder": next(kind for kind, part in kinds.items() if part in parts),
        "search.gnn.hidden": len(found["stem", "weight"]),
        "search.gnn.layers": len({name.split(".")[0] for part, name in found if part == "convs"}),
    }


def encoder_of(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a policy that read graphs; of several encoders, the actor's."""
    start = next((name for name in weights if EMBED in name), None)
    if start is None:
        raise LookupError("it has no encoder")
    start = start[: start.index(EMBED) + len(EMBED)]
    found = {k.removeprefix(start): v for k, v in weights.items() if k.startswith(start)}
    return {name: value for name, value in found.items() if not name.startswith(DECODER)}


def _weights(saved: Mapping[str, Any], part: str) -> dict[str, Tensor]:
    """The weights of a saved agent, of either kind, or of an encoder alone."""
    if part == "encoder" and "encoder" in saved:
        return {f"{EMBED}{name}": value for name, value in saved["encoder"].items()}
    return upgraded(saved["nets"] if "nets" in saved else saved["policy"])


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
