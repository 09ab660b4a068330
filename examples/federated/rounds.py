"""SPATL (Yu et al., SC 2022) on handwritten digits: clients send the salient channels of updates.

    python -m examples.federated.rounds                      one run, by params.yaml
    python -m examples.federated.rounds --compare --seeds 3  against FedAvg and simpler selections
    python -m examples.federated.rounds --workers 2          clients on Ray workers

A row per client and round: its accuracy on its own test images with the server's parameters (and
its own head), how many numbers it sent and received.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from examples.federated.client import Client, Clients, FederatedSettings, accuracy, visit
from examples.federated.server import Sent, State, averaged, mean_of_clients
from gnnrl.files import read_yaml
from gnnrl.report.sweep import markdown, spread
from gnnrl.search.parallel.ray import ray_workers
from gnnrl.search.parallel.settings import RaySettings
from gnnrl.search.parallel.workers import Lost, Workers
from gnnrl.settings import checked

HERE = Path("examples/federated")
FEDAVG: dict[str, Any] = {"keep": 1.0, "select": "uniform", "local_head": False, "control": False}
HALF = {"local_head": True, "control": True}
METHODS: dict[str, dict[str, Any]] = {
    "FedAvg": FEDAVG,
    "FedAvg, local head": {**FEDAVG, "local_head": True},
    "SCAFFOLD, local head": {**FEDAVG, **HALF},
    "SPATL": {"keep": 0.5, "select": "agent", **HALF},
    "SPATL, uniform selection": {"keep": 0.5, "select": "uniform", **HALF},
    "SPATL, random selection": {"keep": 0.5, "select": "random", **HALF},
    "SPATL, no control variates": {"keep": 0.5, "select": "agent", **HALF, "control": False},
}
"""What is compared; all else as in params.yaml."""


def run(
    settings: FederatedSettings, workers: Workers | None = None, clients: Clients | None = None
) -> Iterator[tuple[State, list[dict[str, Any]]]]:
    """Yield the server's parameters and the rows of each round.

    workers: have copies of `clients`, and take the visits of a round; with none this process does.
    """
    clients = clients or Clients.of(settings)
    server, members = clients.first()
    control = members[0].gradient
    for round_ in range(1, settings.rounds + 1):
        visits = [(which, round_, member, server, control) for which, member in enumerate(members)]
        members, sent = [
            list(side) for side in zip(*visited(clients, visits, workers), strict=True)
        ]
        server = averaged(server, sent)
        if settings.control:
            control = mean_of_clients([m.gradient for m in members], [m.known for m in members])
        yield server, list(figures(clients, round_, server, members, sent))


def visited(
    clients: Clients, visits: list[tuple[Any, ...]], workers: Workers | None
) -> list[tuple[Client, Sent]]:
    """Visit all clients, here or on workers; return what came of it in their order."""
    if workers is None:
        return [visit(clients, *given) for given in visits]
    for given in visits:
        workers.submit(given[0], visit, *given)
    found = dict(workers.completed() for _ in visits)
    lost = [result.reason for result in found.values() if isinstance(result, Lost)]
    if lost:
        raise SystemExit(f"a client gave no result: {lost[0]}")
    return [found[which] for which in range(len(visits))]


def figures(
    clients: Clients, round_: int, server: State, members: list[Client], sent: list[Sent]
) -> Iterator[dict[str, Any]]:
    """Yield a row for each client."""
    shared = sum(value.numel() for value in server.values())
    received = shared * (2 if clients.settings.control else 1)
    for which, (part, member, one) in enumerate(zip(clients.parts, members, sent, strict=True)):
        yield {
            "round": round_, "client": which, "train_images": one.images,
            "test_images": len(part.test), "accuracy": accuracy(part, server | member.head),
            "sent": one.numbers, "received": received, "shared": shared,
        }  # fmt: skip


def table(rows: pd.DataFrame) -> str:
    """Return a line per method: the mean over clients of the last three rounds, over seeds."""
    last = rows[rows["round"] > rows["round"].max() - 3]
    lines: list[dict[str, str]] = []
    for name in dict.fromkeys(rows["method"]):
        part, every = last[last["method"] == name], rows[rows["method"] == name]
        seeds = 100 * part.groupby("seed")["accuracy"].mean()
        worst = 100 * part.groupby(["seed", "client"])["accuracy"].mean().groupby("seed").min()
        lines.append(
            {"method": name, "seeds": str(len(seeds)),
             "accuracy, %": spread(seeds, 1),
             "worst client, %": f"{worst.mean():.1f}",
             "sent per client and round": f"{every['sent'].mean():,.0f}",
             "received": f"{every['received'].mean():,.0f}"}
        )  # fmt: skip
    return markdown(list(lines[0]), [list(line.values()) for line in lines])


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--params", type=Path, default=HERE / "params.yaml")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "rounds.csv")
    parser.add_argument("--compare", action="store_true", help="all methods")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0, help="on Ray")
    given = parser.parse_args()
    settings = checked(FederatedSettings, read_yaml(given.params)["federated"], str(given.params))
    chosen: dict[str, dict[str, Any]] = {name: METHODS[name] for name in given.methods}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    for seed in range(settings.seed, settings.seed + given.seeds):
        for name, changes in (chosen if given.compare else {"params": {}}).items():
            if not known(given.out, name, seed):
                one(settings.changed(**changes, seed=seed), name, given.workers, given.out)
    print(table(pd.read_csv(given.out)))


def one(settings: FederatedSettings, name: str, workers: int, out: Path) -> None:
    """Run all rounds and append their rows."""
    clients, rows = Clients.of(settings), []
    with ray_workers(clients, RaySettings(workers=workers) if workers else None) as pool:
        for _, found in run(settings, pool, clients):
            rows += [{"method": name, "seed": settings.seed, **row} for row in found]
    pd.DataFrame(rows).to_csv(
        out, mode="a", header=not out.exists(), index=False, lineterminator="\n"
    )
    mean = sum(row["accuracy"] for row in found) / len(found)
    print(f"{name}, seed {settings.seed}: accuracy {mean:.4f}, round {settings.rounds}", flush=True)


def known(out: Path, name: str, seed: int) -> bool:
    """Whether the file has the rows of a run, so that it need not be repeated."""
    if not out.exists():
        return False
    rows = pd.read_csv(out)
    return bool(((rows["method"] == name) & (rows["seed"] == seed)).any())


if __name__ == "__main__":
    main()
