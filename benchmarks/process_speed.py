"""Whole-process speed of the shipped ONNX file, dense against subnet, beside the promised ratio.

    python -m benchmarks.process_speed
    python -m benchmarks.process_speed --networks resnet56 --asked 0.5

For each network a latency table of ONNX Runtime is measured (one image, one thread), and the plan
of uniform width within the budget is cut.  `promised`: the ratio that `evaluate` measures, subnet
over dense network, median of rounds in turns.  `process`: the same ratio of whole processes, which
start Python, load the file that `evaluate` ships and classify so many images one by one; dense and
subnet take turns.  `images_alone`: the same ratio without the start, which processes that classify
one image take.  Each network is one row.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.harness import append, done, options
from benchmarks.latency_prediction import NETWORKS, space_of, surgeon_of
from gnnrl.measurement.export import onnx_bytes
from gnnrl.measurement.latency import Timing, time_networks
from gnnrl.measurement.latency_table import table_of

KEYS = ("network", "asked", "images")
SCRIPT = """
import sys
import numpy as np
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
image = np.random.default_rng(0).random([int(n) for n in sys.argv[3:]], dtype=np.float32)[None]
for _ in range(int(sys.argv[2])):
    session.run(None, {"images": image})
"""


def seconds(file: Path, images: int, shape: tuple[int, ...]) -> float:
    """Return how long a process takes that classifies images with an ONNX file."""
    words = [sys.executable, "-c", SCRIPT, str(file), str(images), *map(str, shape)]
    started = time.perf_counter()
    subprocess.run(words, check=True)
    return time.perf_counter() - started


def row(name: str, asked: float, given: argparse.Namespace) -> dict:
    """Return what a network's subnet promises, and what its processes take."""
    surgeon, shape = surgeon_of(name), NETWORKS[name]
    table = table_of(surgeon, 1, 15, "onnxruntime", 1)
    plan = space_of("joint", surgeon, table, asked).uniform()
    networks = {"dense": surgeon.network, "subnet": surgeon.cut(plan)}
    timed = time_networks(networks, shape, 1, 60, "onnxruntime", 1)
    promised = timed["subnet"].over(timed["dense"])
    taken: dict[str, list[float]] = {key: [] for key in networks}
    starts: dict[str, list[float]] = {key: [] for key in networks}
    with tempfile.TemporaryDirectory() as folder:
        files = {key: Path(folder) / f"{key}.onnx" for key in networks}
        for key, network in networks.items():
            files[key].write_bytes(onnx_bytes(network, shape))
        for _ in range(given.rounds):
            for key, file in files.items():
                starts[key].append(seconds(file, 1, shape))
                taken[key].append(seconds(file, given.number, shape))
    whole = {key: Timing(tuple(values)) for key, values in taken.items()}
    start = {key: Timing(tuple(values)) for key, values in starts.items()}
    alone = {key: whole[key].milliseconds - start[key].milliseconds for key in networks}
    process = whole["subnet"].over(whole["dense"])
    return {
        **dict(zip(KEYS, (name, asked, given.number), strict=True)),
        "promised": round(promised.milliseconds, 4),
        "promised_spread": round(promised.spread, 4),
        "process": round(process.milliseconds, 4),
        "process_spread": round(process.spread, 4),
        "images_alone": round(alone["subnet"] / alone["dense"], 4),
        "start_seconds": round(start["dense"].milliseconds, 3),
        "dense_seconds": round(whole["dense"].milliseconds, 3),
        "subnet_seconds": round(whole["subnet"].milliseconds, 3),
        "machine": f"{table.device} {table.machine}",
        "torch": torch.__version__,
    }


def main() -> None:
    parser = options(__doc__, "process_speed.csv", data=False)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--asked", type=float, default=0.5, help="of the dense network's latency")
    parser.add_argument("--number", type=int, default=1000, help="images that are classified")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    for name in given.networks:
        key = dict(zip(KEYS, (name, given.asked, given.number), strict=True))
        if not done(given.out, key):
            found = row(name, given.asked, given)
            append(given.out, found)
            print(name, found["promised"], found["process"], flush=True)


if __name__ == "__main__":
    main()
