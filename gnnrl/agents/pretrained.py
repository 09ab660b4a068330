"""The agent that ships with the library: a policy that other networks have taught (`zoo/`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from gnnrl.agents.registry import AGENTS, Builders
from gnnrl.errors import UserError
from gnnrl.rl.policy import Policy

PRETRAINED = "pretrained"
"""The value of `agent_from` that stands for it."""

SHIPPED = Path(__file__).with_name("pretrained.safetensors")
HEADER = "gnnrl"


def write_pretrained(policy: Policy, path: Path, *, space: str, features: str) -> None:
    """Write a policy of continuous actions.

    space: whose actions it decides.  features: digest of the columns of its observations.
    """
    from safetensors.torch import save_file

    about = {"space": space, "features": features, "action_kind": "continuous",
             "encoder": policy.embed.settings.model_dump(mode="json")}  # fmt: skip
    weights = {name: value.contiguous() for name, value in policy.state_dict().items()}
    save_file(weights, path, {HEADER: json.dumps(about, sort_keys=True)})


def read_pretrained(path: Path = SHIPPED) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the weights of a policy and what it was made for."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()[HEADER])
        return {name: file.get_tensor(name) for name in sorted(file.keys())}, about


def encoder(agent: str, space: str, features: str, action_kind: str) -> dict[str, Any]:
    """Return the settings of the shipped policy's encoder.

    Raises `UserError` where it was made for another space, kind of actions or features, and for
    agents without an encoder.
    """
    _, about = read_pretrained()
    if not AGENTS.get(agent, Builders()).encoder:
        raise UserError(
            f"agent_from {PRETRAINED}: the agent {agent} has no policy that could be taken over; "
            "choose ppo, or set agent_from to null"
        )
    given = {"space": space, "action_kind": action_kind, "features": features}
    for name, what in (
        ("space", "decides in the space"),
        ("action_kind", "has actions that are"),
        ("features", "reads the features of version"),
    ):
        if about[name] != given[name]:
            raise UserError(
                f"agent_from {PRETRAINED}: the agent that ships with the library {what} "
                f"{about[name]}, got {given[name]}; set search.agent_from to null"
            )
    return dict(about["encoder"])
