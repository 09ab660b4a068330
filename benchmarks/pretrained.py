"""Does the graph matter? Policies that were taught without a family plan for it, unevaluated.

    cd zoo && dvc repro && cd ..  (the networks of the zoo, and the plans that were tried on them)
    python -m benchmarks.pretrained

For every network of the zoo: a policy that learned from all other families, on digits as the one
that ships, the same with its features blanked, without message passing, gradient boosting on the
same features; and controls: uniform, the allocation, the solver, evolution with 20 and 80
evaluations there.  Each plan is scored on images that nothing has seen, with Gram compensation:
`divergence` is the Jensen-Shannon divergence from the dense network.  Each plan is one row; a plan
that has a row is not repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pandas as pd
from torch import Tensor

from benchmarks.harness import append, done, options
from gnnrl.agents.registry import build_agent
from gnnrl.pruning.plan import PruningPlan
from gnnrl.report.sweep import markdown
from gnnrl.search import build
from gnnrl.search.env import PruningEnv
from gnnrl.search.loop import search
from gnnrl.search.settings import SearchSettings
from gnnrl.search.spaces.channels import ChannelSpace
from zoo.learn import Decide, decides, learn, load, tabular
from zoo.networks import family
from zoo.samples import MODES, REWARD, calibration, inputs_of

BUDGETS = (0.33, 0.5)
TAUGHT = "digits"
"""The images of the networks that policies learn from, as the one that ships."""
KEYS = ("data", "network", "mode", "budget", "line")
LEARNED: dict[str, Callable[..., Decide]] = {
    "pretrained policy": lambda tried: decides(learn(tried)),
    "features blanked": lambda tried: decides(learn(tried, blind=True)),
    "no message passing": lambda tried: decides(learn(tried, message_passing=False)),
    "gradient boosting": tabular,
}
SEARCHED = {"solver": 1, "evolution 20": 20, "evolution 80": 80}
"""Evaluations that they may spend, the calibration pass not counted."""
NAMES = {"digits": "digits", "cifar10": "CIFAR-10, 16x16"}
LINES = {
    "pretrained policy": "pretrained policy",
    "features blanked": "features blanked",
    "no message passing": "no message passing",
    "gradient boosting": "gradient boosting on the features of the decided nodes",
    "allocation": "allocation",
    "solver": "solver",
    "evolution 20": "`evolution`, 20 evaluations",
    "evolution 80": "`evolution`, 80 evaluations",
}


@cache
def taught(line: str, without: str) -> Decide:
    """Return what learned from all families but one."""
    return LEARNED[line]([t for t in load(TAUGHT) if t.family != without])


def plan_of(line: str, env: PruningEnv, without: str) -> PruningPlan:
    """Return the plan of a line for the network of an environment."""
    space = env.space
    assert isinstance(space, ChannelSpace)
    if line in LEARNED:
        return space.plan(taught(line, without)(space.observation()).numpy())
    if line in SEARCHED:
        name = line.split()[0]
        around = {"initial_action": 0.5, "sigma": 0.1} if name == "evolution" else {}
        agent = build_agent(name, env, seed=0, **around)
        env.spent = 0.0
        return search(env, agent, evaluations=SEARCHED[line], batch=8, seed=0).plan
    return space.controls()[line]


def main() -> None:
    parser = options(__doc__, "pretrained.csv", data=False)
    parser.add_argument("--networks", nargs="+", help="of the zoo, such as plain_3; default: all")
    given = parser.parse_args()
    for path in sorted(Path("zoo/artifacts").glob("*/*/samples.pt")):
        if not given.networks or path.parts[-2] in given.networks:
            one(path.parts[-3], path.parts[-2], given.out)


def one(data: str, network: str, out: Path) -> None:
    """Write the rows of a network."""
    lines = {
        "calibrated": ("uniform", "allocation", *SEARCHED, *LEARNED),
        "weights": ("uniform", *LEARNED),
    }
    wanted = [(data, network, mode, budget, line)
              for mode in MODES for budget in BUDGETS for line in lines[mode]]  # fmt: skip
    wanted = [key for key in wanted if not done(out, dict(zip(KEYS, key, strict=True)))]
    if not wanted:
        return
    inputs = inputs_of(data, network)
    found = calibration(inputs)
    reward = SearchSettings(reward=REWARD)
    evaluator = build.make_evaluator(reward, inputs, found.reconstruction)
    unseen = evaluator.on(*pixels_of(data, network))
    assert unseen is not None
    for key in wanted:
        _, _, mode, budget, line = key
        settings = SearchSettings(budget={"flops": budget}, reward=REWARD, **MODES[mode])
        known = found if mode == "calibrated" else build.Calibrated()
        env = build.make_env(settings, inputs, known)
        env.evaluate = evaluator
        (figures,) = unseen([plan_of(line, env, family(network))])
        row = {"divergence": -figures.reward, "accuracy": figures.accuracy}
        append(out, {**dict(zip(KEYS, key, strict=True)), "family": family(network), **row})
        print(*key, {name: round(value, 4) for name, value in row.items()}, flush=True)


@cache
def pixels_of(data: str, network: str) -> tuple[Tensor, Tensor]:
    """Return the test images of a data set and their labels, not class by class: norms are
    estimated anew on batches of them."""
    from gnnrl.checkpoint import Checkpoint
    from gnnrl.data.load import load_data
    from gnnrl.params.load import load_params

    checkpoint = Checkpoint.load(f"zoo/artifacts/{data}/{network}/final.safetensors", trust=True)
    recipe = load_params("pretrain", Path(f"zoo/{data}.yaml")).data
    return build.mixed(load_data(recipe, checkpoint.input_shape).test, seed=0)


def families(out: Path) -> str:
    """Return, for each line, the mean divergence over that of uniform and the points of accuracy
    that it is ahead of uniform, for each data set, with the calibration pass and without."""
    rows = pd.read_csv(out)
    keys = ["data", "network", "mode", "budget"]
    start = rows[rows["line"] == "uniform"].set_index(keys)[["divergence", "accuracy"]]
    rows = rows.join(start, on=keys, rsuffix="_uniform")
    rows["relative"] = rows["divergence"] / rows["divergence_uniform"]
    rows["ahead"] = 100 * (rows["accuracy"] - rows["accuracy_uniform"])
    lines = []
    for line, says in LINES.items():
        cells = []
        for mode in MODES:
            for data in NAMES:
                own = rows[(rows["line"] == line) & (rows["mode"] == mode) & (rows["data"] == data)]
                told = f"{own['relative'].mean():.2f}; {own['ahead'].mean():+.1f}"
                cells.append(told if len(own) else "–")
        lines.append([says, *cells])
    modes = ("with the calibration pass", "without an image")
    head = [f"{mode}: {name}" for mode in modes for name in NAMES.values()]
    return markdown(["plan", *head], lines)


if __name__ == "__main__":
    main()
