"""Job graphs and machines to train and test on, drawn from a generator that is passed in.

Sizes of data are such that the mean transfer costs about `ccr` times the mean task, on machines
whose speeds and bandwidths are about 1 (the communication-to-computation ratio of the papers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise

import numpy as np

from gnnrl.errors import UserError
from gnnrl.scheduling.dag import JobGraph
from gnnrl.scheduling.machines import Machines, Problem

Edge = tuple[int, int]
Kind = Callable[[int, np.random.Generator, float], JobGraph]  # tasks, generator, ccr


def layered(num_tasks: int, generator: np.random.Generator, ccr: float = 1.0) -> JobGraph:
    """Tasks in layers of random width around sqrt(tasks); each needs 1 to 3 tasks further up."""
    _need(num_tasks, 1, "layered")
    layer_of: list[int] = []
    width = max(1.0, num_tasks**0.5 * generator.uniform(0.5, 1.5))
    while len(layer_of) < num_tasks:
        size = int(generator.integers(1, max(2, round(2 * width))))
        layer_of += [layer_of[-1] + 1 if layer_of else 0] * size
    layer = np.array(layer_of[:num_tasks])
    edges: set[Edge] = set()
    for task in np.flatnonzero(layer > 0):
        above = np.flatnonzero(layer == layer[task] - 1)
        earlier = np.flatnonzero(layer < layer[task])
        edges.add((int(generator.choice(above)), int(task)))
        for parent in generator.choice(earlier, size=int(generator.integers(0, 3))):
            edges.add((int(parent), int(task)))
    return _weighted(f"layered-{num_tasks}", num_tasks, edges, generator, ccr)


def erdos_renyi(num_tasks: int, generator: np.random.Generator, ccr: float = 1.0) -> JobGraph:
    """Every pair of a random order is an edge with one probability, for 1 to 2 edges a task."""
    _need(num_tasks, 1, "erdos_renyi")
    degree = generator.uniform(2.0, 4.0)
    chance = min(1.0, degree / max(num_tasks - 1, 1))
    rows, columns = np.triu_indices(num_tasks, k=1)
    chosen = generator.random(rows.size) < chance
    name_of = generator.permutation(num_tasks)  # the numbers must not give the order away
    pairs = zip(name_of[rows[chosen]], name_of[columns[chosen]], strict=True)
    edges = {(int(a), int(b)) for a, b in pairs}
    return _weighted(f"erdos-renyi-{num_tasks}", num_tasks, edges, generator, ccr)


def gaussian_elimination(size: int, generator: np.random.Generator, ccr: float = 1.0) -> JobGraph:
    """Elimination of a size x size matrix: (size^2 + size - 2) / 2 tasks (Topcuoglu 2002, 5.3)."""
    _need(size, 2, "gaussian_elimination")
    pivot, update, tasks = {}, {}, 0
    for k in range(size - 1):
        pivot[k], tasks = tasks, tasks + 1
        for j in range(k + 1, size):
            update[k, j], tasks = tasks, tasks + 1
    edges: set[Edge] = set()
    for k, j in update:
        edges.add((pivot[k], update[k, j]))
        if k + 1 < size - 1:
            edges.add((update[k, j], pivot[k + 1] if j == k + 1 else update[k + 1, j]))
    return _weighted(f"gaussian-elimination-{size}", tasks, edges, generator, ccr)


def fft(points: int, generator: np.random.Generator, ccr: float = 1.0) -> JobGraph:
    """Fast Fourier transform of 2^k points: 2 points - 1 calls, points * k butterflies."""
    _need(points, 2, "fft")
    if points & (points - 1):
        raise UserError(f"fft: the number of points must be a power of two, got {points}")
    calls = 2 * points - 1  # a binary tree, numbered like a heap: 0 is the first call
    edges: set[Edge] = {((child - 1) // 2, child) for child in range(1, calls)}
    previous, tasks, stride = list(range(points - 1, calls)), calls, 1
    while stride < points:
        current = list(range(tasks, tasks + points))
        for i, task in enumerate(current):
            edges |= {(previous[i], task), (previous[i ^ stride], task)}
        previous, tasks, stride = current, tasks + points, 2 * stride
    return _weighted(f"fft-{points}", tasks, edges, generator, ccr)


def montage(num_tasks: int, generator: np.random.Generator, ccr: float = 1.0) -> JobGraph:
    """Like the Montage sky mosaics (Deelman et al. 2005): project, compare, fit, correct, join.

    w images are projected, overlapping pairs compared, all of that fitted in two steps, every
    image corrected, and the mosaic put together in four steps; spare tasks are more comparisons.
    """
    _need(num_tasks, 9, "montage")
    images = (num_tasks - 5) // 3 if num_tasks > 10 else 1
    compares = num_tasks - 6 - 2 * images
    image = list(range(images))
    compare = list(range(images, images + compares))
    fit, model = images + compares, images + compares + 1
    correct = list(range(model + 1, model + 1 + images))
    tail = list(range(model + 1 + images, num_tasks))
    edges: set[Edge] = {(fit, model)}
    for i, task in enumerate(compare):
        offset = 1 + i // images
        edges |= {(image[i % images], task), (image[(i + offset) % images], task), (task, fit)}
    for source, task in zip(image, correct, strict=True):
        edges |= {(source, task), (model, task), (task, tail[0])}
    edges |= set(pairwise(tail))
    return _weighted(f"montage-{num_tasks}", num_tasks, edges, generator, ccr)


KINDS: Mapping[str, Kind] = {"layered": layered, "erdos_renyi": erdos_renyi, "montage": montage}


def machines(count: int, generator: np.random.Generator) -> Machines:
    """Speeds 0.5 to 2, bandwidths 0.5 to 2 and a little latency, the same both ways of a line."""
    _need(count, 1, "machines")
    speeds = np.exp2(generator.uniform(-1.0, 1.0, count))
    line = np.exp2(generator.uniform(-1.0, 1.0, (count, count)))
    line = np.triu(line, 1) + np.triu(line, 1).T + np.eye(count)
    delay = np.triu(generator.uniform(0.0, 0.1, (count, count)), 1)
    return Machines(_row(speeds), tuple(map(_row, line)), tuple(map(_row, delay + delay.T)))


def random_problem(
    num_tasks: int,
    num_machines: int,
    generator: np.random.Generator,
    kinds: Iterable[Kind] = (layered, erdos_renyi),
) -> Problem:
    """One of the kinds of graphs, with transfers from cheap (ccr 0.25) to expensive (ccr 2)."""
    options = tuple(kinds)
    kind = options[int(generator.integers(len(options)))]
    ccr = float(np.exp2(generator.uniform(-2.0, 1.0)))
    return Problem(kind(num_tasks, generator, ccr), machines(num_machines, generator))


def held_out(
    count: int,
    num_tasks: int,
    num_machines: int,
    seed: int,
    kinds: Iterable[Kind] = (layered, erdos_renyi),
) -> list[Problem]:
    """Problems to test on; training draws from single-number seeds, these from three numbers."""
    options = tuple(kinds)
    return [
        random_problem(num_tasks, num_machines, np.random.default_rng([seed, at, 1]), options)
        for at in range(count)
    ]


def _weighted(
    name: str, num_tasks: int, edges: set[Edge], generator: np.random.Generator, ccr: float
) -> JobGraph:
    """The graph with work of mean 1 (0.2 to 1.8) and data of mean `ccr`, drawn alike."""
    if not ccr >= 0:
        raise UserError(f"{name}: ccr must be >= 0, got {ccr}")
    ordered = tuple(sorted(edges))
    work = generator.uniform(0.2, 1.8, num_tasks)
    data = ccr * generator.uniform(0.2, 1.8, len(ordered))
    return JobGraph(_row(work), ordered, _row(data), name)


def _row(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _need(value: int, least: int, what: str) -> None:
    if value < least:
        raise UserError(f"{what}: size must be at least {least}, got {value}")
