"""Write the artifacts of the present version: `python -m tests.compatibility COMMIT`.

What earlier versions wrote is never written again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from gnnrl.checkpoint import Checkpoint
from gnnrl.graph.cost import cost
from gnnrl.graph.extract import extract
from gnnrl.networks.build import build_network
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import prune
from tests.compatibility import made
from tests.golden import assemble

FINISHED = 4
"""Evaluations before the search of the journal is killed."""


class Killed(Exception):
    """The search ends here."""


class Counted:
    """Evaluates some plans and then no more."""

    def __init__(self, evaluate: Any) -> None:
        self.evaluate, self.left = evaluate, FINISHED

    def __getattr__(self, name: str) -> Any:
        return getattr(self.evaluate, name)

    def __call__(self, plans: Sequence[PruningPlan]) -> Any:
        if not self.left:
            raise Killed
        self.left -= 1
        return self.evaluate(plans)


def write_network(folder: Path) -> dict[str, Any]:
    """Write a graph, a plan and the checkpoint of the subnet; return what they say."""
    torch.manual_seed(0)
    network = build_network(made.NETWORK, made.CLASSES, made.SHAPE).train()
    network(torch.rand(8, *made.SHAPE))
    graph = extract(network.eval(), torch.zeros(1, *made.SHAPE))
    plan = PruningPlan({"conv2": tuple(range(0, 16, 2)), "conv4": tuple(range(0, 64, 6))})
    subnet = prune(network, graph, plan).eval()
    dense = Checkpoint.of(network, made.NETWORK, made.CLASSES, made.SHAPE)
    dense.following(subnet, plan).save(folder / "subnet.safetensors")
    graph.save(folder / "graph.json")
    plan.save(folder / "plan.json")
    with torch.no_grad():
        logits = subnet(made.image())
    costs = {"dense": cost(graph), "plan": cost(graph, plan)}
    return {
        "logits": logits.tolist(),
        "plan": plan.digest,
        "graph": graph.digest,
        "costs": {name: [found.flops, found.parameters] for name, found in costs.items()},
    }


def write_agents(folder: Path) -> dict[str, list[float]]:
    """Write agents that have learned; return what they think best."""
    actions = {}
    for name in made.PLAYERS:
        env = made.environment(name)
        agent = made.agent(name, env)
        made.searched(name, env, agent)
        torch.save(agent.state_dict(), folder / f"{name}.pt")
        actions[name] = made.greedy(agent, env)
    return actions


def write_journal(folder: Path) -> dict[str, Any]:
    """Write the journal of a search that was killed; return how it would have ended."""
    env = made.environment("ppo")
    whole = made.searched("ppo", env, made.agent("ppo", env))
    env.evaluate = Counted(env.evaluate)
    try:
        made.searched("ppo", env, made.agent("ppo", env), folder / "journal")
    except Killed:
        pass
    return {
        "plans": [row["plan"] for row in whole.evaluations],
        "rewards": [row["reward"] for row in whole.evaluations],
    }


def main(name: str) -> None:
    """Write all of it below this folder."""
    folder = Path(__file__).parent / name
    folder.mkdir()
    with assemble.settled():
        expected = {
            **write_network(folder),
            "actions": write_agents(folder),
            "search": write_journal(folder),
        }
    text = json.dumps(expected, indent=1, sort_keys=True) + "\n"
    (folder / "expected.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
