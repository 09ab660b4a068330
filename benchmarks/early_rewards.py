"""Early compression: which reward, on initial weights, predicts the accuracy after training?

    python -m benchmarks.early_rewards
    python -m benchmarks.early_rewards --searched naswot --out early_searched.csv
    python -m benchmarks.early_rewards --table

Plans that keep a number of filters, drawn at random, are scored on the network as initialised by
each candidate reward; then the subnets are trained, each several times with other orders of the
images, and tested.  For some plans there is a twin: as many filters in each layer, but others.
A row per plan and figure; one that is there is not computed again.  Candidates: accuracy and minus
the loss on the reward images, without training and after a short one (`search.reward.training`);
proxies that train nothing: SNIP (Lee et al. 2019), GraSP (Wang et al. 2020) and SynFlow (Tanaka et
al. 2020) summed over the subnet's weights (Abdelfattah et al. 2021), the norm of the gradient,
NASWOT (Mellor et al. 2021); and controls that read widths alone.  `--searched`: what searches find
that maximise a proxy, and what the subnets of their plans reach.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from benchmarks.early_compression import SEARCHERS, UNTRAINED, Dense, Setting, digits, pretrained
from benchmarks.harness import RESULTS, append, components, done, options
from gnnrl.agents.registry import build_agent
from gnnrl.data.calibration import labelled_examples
from gnnrl.data.load import load_data
from gnnrl.data.splits import Splits
from gnnrl.evaluation.base import Evaluation, FromFunction
from gnnrl.graph.cost import cost
from gnnrl.pruning.batch_norm import batch_statistics
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import Surgeon, prune
from gnnrl.report.sweep import markdown
from gnnrl.runtime import device
from gnnrl.search import build
from gnnrl.search.loop import search
from gnnrl.search.settings import SearchSettings
from gnnrl.search.spaces.filters import FilterSpace
from gnnrl.training.evaluate import accuracy
from gnnrl.training.loop import train

KEYS = ("network", "sparsity", "seed", "plan", "twin")
SHORT = {
    "": (0.0, "constant"),
    **{f"_{e:g}": (e, "constant") for e in (0.25, 0.5, 1.0)},
    **{f"_{e:g}_cycle": (e, "one_cycle") for e in (1.0, 2.0)},
}
"""Epochs and schedule of the short trainings, by the end of their names."""
TRAININGS = 2
"""Of every plan, with seeds of their own."""
TWINS = 15
"""Plans of each network that have a twin."""
KINDS = {"accuracy": "accuracy", "loss": "minus the loss"}
NAMES = {
    "accuracy": "accuracy, no training (as before)",
    "loss": "minus the loss, no training",
    "snip": "SNIP",
    "grasp": "GraSP",
    "synflow": "SynFlow",
    "gradient": "norm of the gradient",
    "naswot": "NASWOT",
    "flops": "flops of the subnet",
    "narrowest": "filters of the narrowest layer",
    "log_widths": "sum of the logarithms of the widths",
    **{f"{kind}{end}": f"{words} after {epochs:g} epochs, {schedule}"
       for end, (epochs, schedule) in SHORT.items() if end for kind, words in KINDS.items()},
}  # fmt: skip


def gradients(subnet: nn.Module, images: Tensor, labels: Tensor, graph: bool) -> list[Tensor]:
    """Return the gradients of the loss with respect to all parameters, batch norm as trained."""
    with torch.enable_grad(), batch_statistics(subnet.eval()):
        loss = nn.functional.cross_entropy(subnet(images), labels)
        return list(torch.autograd.grad(loss, list(subnet.parameters()), create_graph=graph))


def snip(subnet: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Sum of |w dL/dw|."""
    found = gradients(subnet, images, labels, graph=False)
    return float(sum((w * g).abs().sum() for w, g in zip(subnet.parameters(), found, strict=True)))


def gradient(subnet: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the norm of the gradient of all parameters."""
    found = gradients(subnet, images, labels, graph=False)
    return float(torch.cat([g.flatten() for g in found]).norm())


def grasp(subnet: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Sum of -w (H g): how much gradient flow the weights carry."""
    found = gradients(subnet, images, labels, graph=True)
    flow = sum((g * g.detach()).sum() for g in found)
    assert isinstance(flow, Tensor)
    curved = torch.autograd.grad(flow, list(subnet.parameters()))
    return -float(sum((w * h).sum() for w, h in zip(subnet.parameters(), curved, strict=True)))


def synflow(subnet: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the logarithm of the synaptic flow: positive weights, an image of ones."""
    twin = copy.deepcopy(subnet).double().eval()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.abs_()
    with torch.enable_grad():
        flow = twin(torch.ones(1, *images.shape[1:], dtype=torch.float64)).sum()
        found = torch.autograd.grad(flow, list(twin.parameters()))
    pairs = zip(twin.parameters(), found, strict=True)
    return float(torch.log(sum((w * g).sum() for w, g in pairs) + 1e-30))


def naswot(subnet: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Log-determinant of how alike the images' patterns of active ReLUs are."""
    patterns: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda _, __, out: patterns.append((out > 0).flatten(1)))
        for module in subnet.modules()
        if isinstance(module, nn.BatchNorm2d)  # a ReLU follows each
    ]
    with torch.no_grad(), batch_statistics(subnet.eval()):
        subnet(images)
    for hook in hooks:
        hook.remove()
    on = torch.cat(patterns, dim=1).double()
    alike = on @ on.T + (1 - on) @ (1 - on).T
    return float(torch.linalg.slogdet(alike).logabsdet)


PROXIES: Mapping[str, Callable[[nn.Module, Tensor, Tensor], float]] = {
    "snip": snip,
    "grasp": grasp,
    "synflow": synflow,
    "gradient": gradient,
    "naswot": naswot,
}


def twin_of(space: FilterSpace, plan: PruningPlan, draw: np.random.Generator) -> PruningPlan:
    """Return a plan with as many filters in each layer, but others."""
    kept = space.kept(plan)
    start = 0
    for group in space.graph.groups:
        part = slice(start, start + group.size)
        kept[part] = draw.permutation(kept[part])
        start += group.size
    return space.plan(kept)


def short(epochs: float, schedule: str) -> dict[str, object]:
    """Return the settings of a reward after a short training; `loss` gives the accuracy as well."""
    training = {"training": {"epochs": epochs, "schedule": schedule}} if epochs else {}
    return {**UNTRAINED, "kind": "loss", **training}


def figure(dense: Dense, splits: Splits, plan: PruningPlan, seed: int, name: str) -> dict:
    """Return what a candidate says of a plan, by the names of NAMES."""
    network = dense.at(0).to(device())
    if name in SHORT:
        inputs = build.Inputs(Surgeon(network, dense.graph), splits.reward, splits.train)
        settings = SearchSettings(seed=seed, reward=short(*SHORT[name]))
        (scored,) = build.make_evaluator(settings, inputs)([plan])
        return {f"accuracy{name}": scored.accuracy, f"loss{name}": scored.reward}
    if name in PROXIES:
        images, labels = labelled_examples(splits.train, seed, device())
        assert isinstance(labels, Tensor)
        return {name: PROXIES[name](prune(network, dense.graph, plan), images, labels)}
    widths = widths_of(dense, plan)
    found = {"flops": cost(dense.graph, plan).flops, "narrowest": min(widths)}
    return {**found, "log_widths": float(np.log(widths).sum())}


def widths_of(dense: Dense, plan: PruningPlan) -> list[int]:
    """Return how many filters each layer keeps."""
    return [len(plan.kept[group.layers[0]]) for group in dense.graph.groups]


def space_of(dense: Dense, splits: Splits, sparsity: float) -> FilterSpace:
    """Return the space of plans that keep so many filters."""
    settings = SearchSettings(space="filters", agent="random", budget={"sparsity": sparsity})
    inputs = build.Inputs(Surgeon(dense.at(0), dense.graph), splits.reward, splits.train)
    space = build.make_env(settings, inputs).space
    assert isinstance(space, FilterSpace)
    return space


def plans_of(space: FilterSpace, seed: int, count: int) -> list[tuple[int, int, PruningPlan]]:
    """Return plans, drawn at random, as number, twin (0: none, 1: it is the twin) and plan."""
    draw, random = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    plans = [space.plan(space.random(draw)) for _ in range(count)]
    twins = [(n, 1, twin_of(space, plan, random)) for n, plan in enumerate(plans[:TWINS])]
    return [(n, 0, plan) for n, plan in enumerate(plans)] + twins


def tested(setting: Setting, splits: Splits, dense: Dense, plan: PruningPlan, seed: int) -> float:
    """Return the test accuracy of the subnet after training."""
    subnet = prune(dense.at(0), dense.graph, plan)
    train(subnet, splits.train, setting.recipe, seed=seed)
    return accuracy(subnet, splits.test)


def searched(
    setting: Setting, splits: Splits, dense: Dense, proxy: str, method: str, key: dict, out: Path
) -> None:
    """Append what a search reaches whose reward is a proxy."""
    sparsity, seed = key["sparsity"], key["seed"]
    settings = SearchSettings(
        seed=seed, space="filters", agent=method, budget={"sparsity": sparsity}, reward=UNTRAINED
    )
    surgeon = Surgeon(dense.at(0).to(device()), dense.graph)
    env = build.make_env(settings, build.Inputs(surgeon, splits.reward, splits.train))
    images, labels = labelled_examples(splits.train, seed, device())
    assert isinstance(labels, Tensor)

    def evaluate(plans: Sequence[PruningPlan]) -> list[Evaluation]:
        return [Evaluation(PROXIES[proxy](surgeon.cut(p), images, labels)) for p in plans]

    env.evaluate = FromFunction(evaluate)
    agent = build_agent(method, env, seed=seed, **SEARCHERS[method])
    found = search(env, agent, evaluations=160, batch=8, seed=seed)
    reached = [
        tested(setting, splits, dense, found.plan, 100 * seed + number)
        for number in range(TRAININGS)
    ]
    row = {**key, "proxy": proxy, "method": method, "reward": found.reward,
           "accuracy": sum(reached) / len(reached),
           "widths": " ".join(map(str, widths_of(dense, found.plan)))}  # fmt: skip
    append(out, row)
    print(*row.values(), flush=True)


def exploited() -> str:
    """Return what searches reach that maximise a proxy, mean over networks, in %."""
    rows = pd.read_csv(RESULTS / "early_searched.csv")
    lines = []
    for (proxy, method), part in rows.groupby(["proxy", "method"], sort=False):
        cells = [f"{method}, {NAMES[proxy]}"]
        for _, own in part.groupby("sparsity"):
            widths = own.iloc[0]["widths"]
            cells.append(f"{100 * own['accuracy'].mean():.1f} (widths such as {widths})")
        lines.append(cells)
    levels = (f"{100 * s:.0f} %" for s in sorted(rows["sparsity"].unique()))
    return markdown(["search, its reward", *levels], lines)


def rows_of(path: Path = RESULTS / "early_rewards.csv") -> pd.DataFrame:
    """Return a row for each plan, with a column for each of its figures."""
    rows = pd.read_csv(path)
    return rows.pivot(index=list(KEYS), columns="figure", values="value").reset_index()


def trained(rows: pd.DataFrame) -> np.ndarray:
    """Return the accuracies of all plans after all trainings, in % [plans, trainings]."""
    return 100 * rows[[f"trained_{n}" for n in range(TRAININGS)]].to_numpy()


def correlations(rows: pd.DataFrame) -> str:
    """Return Spearman's correlation of each candidate with the accuracy after training."""
    rows = rows[rows["twin"] == 0]
    lines = []
    for name, says in NAMES.items():
        cells = [says]
        for _, part in rows.groupby("sparsity"):
            found = [
                spearmanr(own[name], trained(own).mean(1))[0] for _, own in part.groupby("seed")
            ]
            cells.append(f"{np.mean(found):.2f}")
        lines.append(cells)
    again = ["one whole training, with another"]
    for _, part in rows.groupby("sparsity"):
        pairs = [trained(own).T[:2] for _, own in part.groupby("seed")]
        again.append(f"{np.mean([spearmanr(*pair)[0] for pair in pairs]):.2f}")
    lines.append(again)
    head = ["reward", *(f"{100 * s:.0f} %" for s in sorted(rows["sparsity"].unique()))]
    return markdown(head, lines)


def spreads(rows: pd.DataFrame) -> str:
    """Return how far accuracies differ between plans and between trainings of one plan.

    Standard deviations in points, of the variance components of a one-way analysis of variance.
    """
    lines = []
    for sparsity, part in rows.groupby("sparsity"):
        within, between, others = [], [], []
        for _, own in part.groupby("seed"):
            first = own[own["twin"] == 0].sort_values("plan")
            twin = own[own["twin"] == 1].sort_values("plan")
            plans, noise = components(trained(first))
            within.append(noise)
            between.append(plans)
            original = trained(first[first["plan"].isin(twin["plan"])]).mean(1)
            gaps = original - trained(twin).mean(1)
            others.append((gaps**2).mean() / 2 - noise / TRAININGS)
        figures = [max(float(np.mean(f)), 0.0) ** 0.5 for f in (between, others, within)]
        share = np.mean(between) / (np.mean(between) + np.mean(within))
        mean = trained(part[part["twin"] == 0]).mean()
        lines.append([f"{100 * sparsity:.0f} %", f"{mean:.1f}", *(f"{f:.1f}" for f in figures),
                      f"{share:.2f}"])  # fmt: skip
    return markdown(["filters removed", "mean accuracy", "between plans", "of which filters of "
                     "equally wide layers", "between trainings of a plan",
                     "share of the plans in the variance"], lines)  # fmt: skip


def one(
    setting: Setting, splits: Splits, dense: Dense, plan: PruningPlan, key: dict, out: Path
) -> None:
    """Append the figures of a plan that have no rows yet; a twin is trained, but not scored."""
    own = {**key, "widths": " ".join(map(str, widths_of(dense, plan)))}
    seed = key["seed"]

    def missing(name: str) -> bool:
        return not done(out, {**key, "figure": name})

    def add(found: Mapping[str, object]) -> None:
        append(out, *({**own, "figure": name, "value": value} for name, value in found.items()))

    for name in () if key["twin"] else (*SHORT, *PROXIES, "widths"):
        if missing(f"accuracy{name}" if name in SHORT else "flops" if name == "widths" else name):
            add(figure(dense, splits, plan, seed, name))
    for number in range(TRAININGS):
        if missing(f"trained_{number}"):
            add({f"trained_{number}": tested(setting, splits, dense, plan, 100 * seed + number)})
    print(*own.values(), flush=True)


def main() -> None:
    parser = options(__doc__, "early_rewards.csv", data=False)
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.7, 0.8])
    parser.add_argument("--plans", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=1, help="networks, as initialised")
    parser.add_argument("--searched", nargs="+", choices=PROXIES, default=[], metavar="PROXY")
    parser.add_argument("--table", action="store_true", help="print the tables, run nothing")
    given = parser.parse_args()
    if given.table:
        rows = rows_of(given.out)
        print(f"{correlations(rows)}\n\n{spreads(rows)}")
        return
    setting = digits(epochs=4)
    splits = load_data(setting.data, setting.shape)
    for seed in range(given.seeds):
        dense = pretrained(setting, splits, (0,), seed)
        for sparsity in given.sparsities:
            for proxy, method in product(given.searched, SEARCHERS):
                key = {"network": setting.network, "sparsity": sparsity, "seed": seed}
                if not done(given.out, {**key, "proxy": proxy, "method": method}):
                    searched(setting, splits, dense, proxy, method, key, given.out)
            if given.searched:
                continue
            space = space_of(dense, splits, sparsity)
            for number, twin, plan in plans_of(space, seed, given.plans):
                key = dict(zip(KEYS, (setting.network, sparsity, seed, number, twin), strict=True))
                one(setting, splits, dense, plan, key, given.out)


if __name__ == "__main__":
    main()
