"""Which networks can be pruned, and how exactly: by `gnnrl`, and by Torch-Pruning beside it.

`python -m benchmarks.any_network` goes through the networks of `benchmarks.zoo` and of
`gnnrl.networks` and writes `benchmarks/results/any_network.csv`, one row for each; cells that are
filled are not measured again.  Half of the channels of every group, drawn at random, are removed.

What is measured of a network, each with limits of CPU time and memory and in a process of its own:

- `cut`: the pruned network's output against that of the masked dense network, in double precision;
  flops and parameters against what PyTorch counts; a training step; a checkpoint that is saved,
  loaded and rebuilds itself; the fraction of the flops that any plan can reach.
- `onnx`: the pruned network, or each part of a pruned detector, in onnxruntime against PyTorch.
- `rival`: Torch-Pruning's `MagnitudePruner` at one half passes if the result runs forward and
  backward, keeps its output shape and costs less.  It is optional:
  `pip install --no-deps torch-pruning==1.6.1`.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import csv
import gc
import importlib.util
import multiprocessing
import resource
import signal
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from benchmarks import zoo
from gnnrl.checkpoint import Checkpoint
from gnnrl.errors import UserError
from gnnrl.graph.cost import cost
from gnnrl.graph.cost_model import flops_of
from gnnrl.graph.extract import extract
from gnnrl.graph.graph import ComputationalGraph
from gnnrl.measurement.export import onnx_bytes, onnx_of, parts_of
from gnnrl.pruning.plan import PruningPlan
from gnnrl.pruning.surgery import prune
from gnnrl.tracing.check import tensors
from gnnrl.tracing.trace import named_inputs
from tests.cutting import assert_trains, conditioned, flops_counted, random_plan, randomise
from tests.masking import Oracle, left_whole

RESULTS = Path(__file__).parent / "results" / "any_network.csv"
EXACT, FLOAT = 1e-9, 1e-4
"""Largest difference, of the largest output, in double precision and in the network's own."""
LARGE = 150_000_000
"""Networks of more parameters are compared in their own precision: for want of memory."""
GIGABYTES = 12
_NO_MEMORY = ("pointer is null", "can't allocate memory", "cannot allocate memory", "bad_alloc")
"""What libraries in other languages say where memory is short."""
Row = dict[str, str]


def cut(name: str) -> Iterator[Row]:
    """Yield what is found out about a cut network, piece by piece."""
    try:
        yield from _cut(name, *_doubled(*_ready(name)))
    except RuntimeError as error:
        if "Double" not in str(error):
            raise
        yield from _cut(name, *_ready(name), FLOAT)  # parts of it run in single precision only


def _cut(name: str, network: nn.Module, example: Any, tolerance: float) -> Iterator[Row]:
    start = time.perf_counter()
    graph = extract(network, example)
    yield {"kind": "crash", "seconds": f"{time.perf_counter() - start:.1f}"}
    yield {"reachable": f"{reachable(graph):.3f}", "why": _whole(graph)}
    plan = random_plan(graph, 0.5, seed=0)
    subnet = prune(network, graph, plan)
    difference = _difference(network, graph, subnet, plan, example)
    if not difference <= tolerance:
        yield {"kind": "wrong", "why": f"it differs by {difference:.1e} of the largest output"}
        return
    kind = "part left whole" if graph.whole else "pruned exactly"
    kind = "nothing to prune" if not graph.num_units else kind
    yield {
        "kind": kind,
        "difference": f"{difference:.0e}",
        "costs": _costs(graph, plan, subnet, example),
    }
    yield {"flops_kept": f"{cost(graph, plan).flops / max(cost(graph).flops, 1):.3f}"}
    yield {"trains": _tried(lambda: assert_trains(subnet, example))}
    yield {"checkpoint": _tried(lambda: _reload(name, network, graph, subnet, plan, example))}


def onnx(name: str) -> Iterator[Row]:
    """Yield whether onnxruntime computes what the cut network does."""
    network, example = _ready(name)
    graph = extract(network, example)
    subnet = prune(network, graph, random_plan(graph, 0.5, seed=0))
    if not isinstance(example, Tensor) or example.ndim != 4:
        yield {"onnx": _tried(lambda: onnx_of(subnet, named_inputs(subnet, example)))}
        return
    parts = parts_of(subnet, graph.input_shape)
    said = [_tried(lambda part=part: onnx_bytes(*part)) for part in parts.values()]
    wrong = next((each for each in said if each != "yes"), None)
    yield {"onnx": wrong or ("yes" if len(said) == 1 else f"yes, {len(said)} files")}


def rival(name: str) -> Iterator[Row]:
    """Yield the verdict on Torch-Pruning and the fraction of the flops that it keeps."""
    import torch_pruning

    network, example = _ready(name)
    dense = flops_counted(network, example)
    inputs = tuple(named_inputs(network, example).values())
    given: Any = example if isinstance(example, Tensor) else dict(named_inputs(network, example))
    shapes = [t.shape for t in tensors(network(*inputs))]
    last = [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    try:
        torch_pruning.pruner.MagnitudePruner(
            network,
            given,
            importance=torch_pruning.importance.MagnitudeImportance(p=2),
            pruning_ratio=0.5,
            ignored_layers=[last],
        ).step()
        output = list(tensors(network(*inputs)))
        kept = flops_counted(network, example) / dense
        sum(t.square().mean() for t in output if t.is_floating_point()).backward()
    except Exception as error:  # any failure is a result
        yield {"torch_pruning": _said(error)}
        return
    yield {"torch_pruning_flops_kept": f"{kept:.3f}"}
    if [t.shape for t in output] != shapes:
        yield {"torch_pruning": "another shape of the output"}
    else:
        yield {"torch_pruning": "nothing is removed" if kept > 0.9 else "pass"}


STEPS = {"cut": cut, "onnx": onnx, "rival": rival}
COLUMNS = {
    "cut": ("kind", "why", "seconds", "reachable", "difference", "costs", "flops_kept", "trains",
            "checkpoint"),
    "onnx": ("onnx",),
    "rival": ("torch_pruning", "torch_pruning_flops_kept"),
}  # fmt: skip
"""What each step fills in, the column that is never empty after it first."""


def reachable(graph: ComputationalGraph) -> float:
    """Return the fraction of the flops in operations that some plan makes cheaper."""
    terms = [term for node in graph.nodes for term in flops_of(graph, node)]
    total = free = 0
    for term in terms:
        flops = term.factor
        for axis in term.axes:
            flops *= len(axis.units)
        total += flops
        free += flops if any((axis.units >= 0).any() for axis in term.axes) else 0
    return free / max(total, 1)


def _ready(name: str) -> tuple[nn.Module, Any]:
    """A network with weights that matter, and an example of its inputs."""
    torch.manual_seed(0)
    network = zoo.build(name)
    example = zoo.example(name)
    randomise(network)
    if isinstance(example, Tensor):
        try:
            conditioned(network, example)
        except Exception:  # an output that is no tensor; the weights are random all the same
            network.eval()
    return network, example


def _doubled(network: nn.Module, example: Any) -> tuple[nn.Module, Any, float]:
    """Network and example in double precision if the network can run so, and the tolerance."""
    if sum(p.numel() for p in network.parameters()) > LARGE:
        return network, example, FLOAT
    twice = copy.deepcopy(network).double()
    wide: Any = fx.node.map_aggregate(example, lambda v: v.double() if v.is_floating_point() else v)
    try:
        with torch.no_grad():
            twice(*named_inputs(twice, wide).values())
    except Exception:  # it makes tensors of one type by itself
        return network, example, FLOAT
    return twice, wide, EXACT


def _difference(
    network: nn.Module,
    graph: ComputationalGraph,
    subnet: nn.Module,
    plan: PruningPlan,
    example: Any,
) -> float:
    """The largest difference between cut and masked network, of the largest output."""
    given = tuple(named_inputs(subnet, example).values())
    with torch.no_grad():
        found = list(tensors(subnet(*given)))
        oracle = Oracle(network, example, left_whole(network, graph))
        expected = list(tensors(oracle.says(plan, *given)))
    scale = max(float(e.abs().max()) for e in expected)
    apart = [float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)]
    return max(apart) / scale


def _costs(graph: ComputationalGraph, plan: PruningPlan, subnet: nn.Module, example: Any) -> str:
    told = cost(graph, plan)
    flops = flops_counted(subnet, example)
    parameters = sum(p.numel() for p in subnet.parameters())
    if (told.flops, told.parameters) == (flops, parameters):
        return "yes"
    return f"{told.flops} flops, {flops} counted; {told.parameters} parameters, {parameters}"


def _reload(
    name: str,
    network: nn.Module,
    graph: ComputationalGraph,
    subnet: nn.Module,
    plan: PruningPlan,
    example: Any,
) -> None:
    """Save and load the checkpoint of the subnet, which must then say what the subnet says."""
    network, subnet = network.float(), copy.deepcopy(subnet).float()
    example = fx.node.map_aggregate(example, lambda v: v.float() if v.is_floating_point() else v)
    dense = Checkpoint.of(network, zoo.builder(name), zoo.CLASSES)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "subnet.safetensors"
        dense.following(subnet, plan, graph).save(path)
        again = Checkpoint.load(path, trust=True).restore()
    given = tuple(named_inputs(subnet, example).values())
    with torch.no_grad():
        ours, other = subnet(*given), again(*given)
    assert all(map(torch.equal, tensors(ours), tensors(other))), "another output after loading"


def _tried(attempt: Any) -> str:
    try:
        attempt()
    except BaseException as error:  # any failure is a result, a panic of safetensors too
        return _said(error)
    return "yes"


def _said(error: BaseException) -> str:
    if _is_short_of_memory(error):
        return f"more than {GIGABYTES} GB of memory"
    return f"{type(error).__name__}: {_first_line(error)}"


def _is_short_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or any(text in str(error) for text in _NO_MEMORY)


def _whole(graph: ComputationalGraph) -> str:
    """Causes by the number of parts that are left whole for each."""
    causes: dict[str, int] = {}
    for why in graph.whole.values():
        for cause in why.split("; "):
            causes[cause] = causes.get(cause, 0) + 1
    return "; ".join(f"{cause} ({count})" for cause, count in causes.items())


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]


def _child(step: str, name: str, seconds: int, pipe: Connection) -> None:
    """Send what a step finds, and what it raises, to the process that waits for it."""
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    limit = GIGABYTES << 30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    first = COLUMNS[step][0]
    try:
        for found in STEPS[step](name):
            pipe.send(found)
            gc.collect()  # traced networks are in cycles, and some are half of the memory
    except UserError as error:
        pipe.send({first: "refused", "why": _first_line(error)} if step == "cut"
                  else {first: f"refused: {_first_line(error)}"})  # fmt: skip
    except BaseException as error:  # any failure is a result
        kind = "memory limit" if _is_short_of_memory(error) else "crash"
        text = _said(error)
        pipe.send({first: kind, "why": text} if step == "cut" else {first: text})
    pipe.close()


def measured(step: str, name: str, seconds: int) -> Row:
    """Return what a step finds about a network, in a process that has `seconds` of CPU time."""
    context = multiprocessing.get_context("fork")
    read, write = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(step, name, seconds, write))
    process.start()
    write.close()
    row = dict.fromkeys(COLUMNS[step], "")
    with contextlib.suppress(EOFError):
        while True:
            row |= read.recv()
    process.join()
    if process.exitcode == 0:
        return row
    kind, why = {
        -signal.SIGXCPU: ("time limit", f"not done after {seconds} s"),
        -signal.SIGKILL: ("memory limit", "more memory than was free"),  # by the system
    }.get(process.exitcode or 0, ("crash", f"ended by signal {-(process.exitcode or 0)}"))
    if step == "cut" and row["kind"] in ("", "crash"):
        return row | {"kind": kind, "why": why}
    first = next((column for column in COLUMNS[step] if not row[column] and column != "why"), None)
    return row | ({first: why} if first else {})


def read(path: Path) -> dict[str, Row]:
    """Rows of a table that was written before, by network."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {r["network"]: r for r in csv.DictReader(file)}


def write(path: Path, rows: Mapping[str, Row]) -> None:
    """The table, after each network, so that an interrupted run leaves what it found."""
    columns = ["network", *(column for each in COLUMNS.values() for column in each)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[name] for name in sorted(rows))


def main() -> None:
    """Fill the table, one step after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", help="names, measured again; default: what is new")
    parser.add_argument("--library", action="append", help="of these only", default=[],
                        choices=[*zoo.LIBRARIES, "own"])  # fmt: skip
    parser.add_argument("--step", action="append", choices=list(STEPS), default=[])
    parser.add_argument("--seconds", type=int, default=180, help="CPU time of each step")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the table to write")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in ("timm", "transformers", "torch_pruning"):
        if importlib.util.find_spec(name) is None:
            print(f"{name} is not installed; its cells stay as they are (see --help)")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    rows = read(arguments.out)
    for step in arguments.step or STEPS:
        if step == "rival" and importlib.util.find_spec("torch_pruning") is None:
            continue
        for name in arguments.networks or zoo.names(tuple(arguments.library)):
            row = rows.setdefault(name, {"network": name})
            if row.get(COLUMNS[step][0]) and not arguments.networks:
                continue
            row |= measured(step, name, arguments.seconds)
            print(name, *(row[column] for column in COLUMNS[step]), sep=" | ", flush=True)
            write(arguments.out, rows)


if __name__ == "__main__":
    main()
