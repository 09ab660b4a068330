"""What a reward depends on, measured."""

from __future__ import annotations

import math

import torch

from gnnrl.evaluation.rewards import Measured
from gnnrl.graph.cost import Cost
from gnnrl.tasks.base import Outputs, Targets, Task
from gnnrl.tasks.classification import CLASSIFICATION

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def measured(
    outputs: Outputs,
    dense: Outputs,
    targets: Targets,
    cost: Cost,
    whole: Cost,
    task: Task = CLASSIFICATION,
    dense_metric: float | None = None,
) -> Measured:
    """Compare a subnet's outputs and cost with targets and with the dense network's.

    dense_metric: the metric of `dense`, if it is known.
    """
    if dense_metric is None:
        dense_metric = metric(dense, targets, dense, task)
    found = {"divergence": math.nan, "jensen_shannon": math.nan, **task.divergences(outputs, dense)}
    return Measured(
        accuracy=metric(outputs, targets, dense, task),
        loss=task.loss(outputs, targets),
        dense_accuracy=dense_metric,
        flops_kept=cost.flops / whole.flops,
        parameters_kept=cost.parameters / whole.parameters,
        **found,
    )


def metric(outputs: Outputs, targets: Targets, dense: Outputs, task: Task) -> float:
    """Return the task's metric of outputs for all images."""
    meter = task.meter()
    meter.add(outputs, targets, dense)
    return meter.value()
