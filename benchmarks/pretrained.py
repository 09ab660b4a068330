"""Does the graph matter? Policies that were taught without a family plan for it, unevaluated.

    cd zoo && dvc repro && cd ..  (the networks of the zoo, and the plans that were tried on them)
    python -m benchmarks.pretrained
    python -m benchmarks.pretrained --refit

For every network of the zoo: a policy that learned from all other families, on digits as the one
that ships, the same with its features blanked, without message passing, gradient boosting on the
same features; and controls: uniform, the allocation, the solver, evolution with 20 and 80
evaluations there.  Each plan is scored on images that nothing has seen, with Gram compensation:
`divergence` is the Jensen-Shannon divergence from the dense network.  Each plan is one row; a plan
that has a row is not repeated.  --refit: the policy and the plans without a search, with the
accuracy once the layers are refitted one after the other on training images, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path

import pandas as pd
import torch
from scipy.stats import ttest_1samp
from torch import Tensor

from benchmarks.harness import append, done, options
from benchmarks.pruning_table import chance
from gnnrl.agents.registry import build_agent
from gnnrl.data.calibration import calibration_images
from gnnrl.pruning.compensation.sequential import compensate
from gnnrl.pruning.plan import PruningPlan
from gnnrl.report.sweep import markdown
from gnnrl.runtime import device, generator
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
COMPARED = {
    "calibrated": ("uniform", "allocation", *SEARCHED, *LEARNED),
    "weights": ("uniform", *LEARNED),
}
REFITTED = {
    "calibrated": ("uniform", "allocation", "pretrained policy"),
    "weights": ("uniform", "pretrained policy"),
}
"""Lines by mode: those of a search or a policy, and those that are refitted, too."""
REFIT_IMAGES = 1024
WITHOUT = {"calibrated": "with the calibration pass", "weights": "without an image"}
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
    parser.add_argument("--refit", action="store_true", help="refit plans that cost no evaluation")
    given = parser.parse_args()
    if given.refit:
        given.out = given.out.with_stem(f"{given.out.stem}_refit")
    for path in sorted(Path("zoo/artifacts").glob("*/*/final.safetensors")):
        if not given.networks or path.parts[-2] in given.networks:
            one(path.parts[-3], path.parts[-2], given.out, REFITTED if given.refit else COMPARED)


def one(data: str, network: str, out: Path, lines: Mapping[str, Sequence[str]]) -> None:
    """Write the rows of a network; lines: by mode."""
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
        plan = plan_of(line, env, family(network))
        (figures,) = unseen([plan])
        row = {"divergence": -figures.reward, "accuracy": figures.accuracy}
        if lines is REFITTED:
            row["refitted"] = refitted(inputs, plan, pixels_of(data, network))
        append(out, {**dict(zip(KEYS, key, strict=True)), "family": family(network), **row})
        print(*key, {name: round(value, 4) for name, value in row.items()}, flush=True)


def refitted(inputs: build.Inputs, plan: PruningPlan, unseen: tuple[Tensor, Tensor]) -> float:
    """Return the accuracy of a refitted subnet on images that nothing has seen."""
    drawn = calibration_images(inputs.train_images, REFIT_IMAGES, 0, device())
    subnet = compensate(inputs.surgeon, plan, drawn, generator(0, "refit")).eval()
    images, labels = unseen
    with torch.inference_mode():
        found = torch.cat([subnet(part).argmax(1) for part in images.split(512)])
    return float((found == labels).double().mean())


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
    head = [f"{mode}: {name}" for mode in WITHOUT.values() for name in NAMES.values()]
    return markdown(["plan", *head], lines)


def refits(out: Path) -> str:
    """Return the points that plans without a search gain, before and after the refit."""
    rows = pd.read_csv(out)
    lines = []
    for mode, compared in REFITTED.items():
        for budget in BUDGETS:
            own = rows[(rows["mode"] == mode) & (rows["budget"] == budget)]
            networks = own.pivot_table(["accuracy", "refitted"], ["data", "network"], "line")
            for line in compared[1:]:
                cells = [WITHOUT[mode], LINES[line], f"{budget:.2f}", str(len(networks))]
                for figure, other in product(("accuracy", "refitted"), ("uniform", "allocation")):
                    told, stands = networks[figure], other in compared and other != line
                    cells.append(_gained(told[line] - told[other]) if stands else "")
                lines.append(cells)
    over = ("over uniform (p)", "over the allocation (p)")
    head = ["", "plan", "flops kept", "networks", *(f"one-shot, {other}" for other in over),
            *(f"refitted, {other}" for other in over)]  # fmt: skip
    return markdown(head, lines)


def _gained(gains: pd.Series) -> str:
    """Return the mean gain in points, with p of a t-test over networks."""
    p = ttest_1samp(gains, 0.0, alternative="greater").pvalue
    return f"{100 * gains.mean():+.1f} ({chance(float(p))})"


if __name__ == "__main__":
    main()
