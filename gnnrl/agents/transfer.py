"""Starting with what an agent learned on another network."""

from __future__ import annotations

from pathlib import Path

import torch

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
        state = read_state(path)["policy"]
        if not all(value.isfinite().all() for value in state.values()):
            raise UserError("its policy holds NaN or infinite values")
        policy.load_state_dict(state)
    except FileNotFoundError:
        raise UserError(
            f"agent_from {path}: there is no such file; name the agent.pt of a search"
        ) from None
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(
            f"agent_from {path}: another kind of policy ({reason}); use the agent, encoder and "
            "gnn settings that it was saved with"
        ) from None
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"agent_from {path}: not a saved agent ({type(error).__name__}: {error}); name the "
            "agent.pt of a search"
        ) from None
