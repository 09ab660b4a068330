"""A subnet held against the dense network in which the channels of its plan are zero.

Both must give the same numbers, in evaluation and in training mode, for several batch sizes and,
where the network takes them, for images of another size.  Detectors are trained on boxes: their
losses must be the same.  Where a layer or group norm sees channels that are removed, its statistics
become those of what is left: there only shapes are compared.  The subnet must cost less by what the
graph says, counted while both run.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from gnnrl.errors import UserError, first_line, pass_on_shortage
from gnnrl.graph.cost import Cost, cost_of_units
from gnnrl.graph.extract import Analysis
from gnnrl.graph.kernels import rings, shrunk
from gnnrl.graph.rules.flow import Layout
from gnnrl.graph.unit_mapping import kept_indices
from gnnrl.tasks.detection import example_targets
from gnnrl.tasks.nested import tensors
from gnnrl.tracing.check import BATCHES, differs, larger, random_inputs
from gnnrl.tracing.dress import dressed
from gnnrl.tracing.flop_counter import FlopCounter
from gnnrl.tracing.fx_utils import attribute, operation_name, quietly, scope_of

EXACT, ROUNDED = 1e-6, 1e-3
"""Tolerances, of the largest number that is expected: in double precision, and otherwise."""

_ACROSS = {"LayerNorm", "GroupNorm", "RMSNorm", "layer_norm", "group_norm", "rms_norm"}
_DROPOUTS = {
    F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout,
}  # fmt: skip


def prove(
    analysis: Analysis,
    keep: np.ndarray,
    subnet: nn.Module,
    thorough: bool = True,
    kernels: Mapping[str, int] | None = None,
) -> None:
    """Compare the subnet of the units with `keep` `[num_units]` true with the masked network.

    kernels: by layer the sizes of kernels that are smaller in the subnet.
    thorough: in both modes, with two batch sizes and two image sizes; else with one batch in
    evaluation mode.  Networks without weights in memory are not compared.  Raises `UserError`
    that names the first part which gives something else.
    """
    if any(t.is_meta for t in (*subnet.parameters(), *subnet.buffers())):
        return
    pair = _Pair(analysis, keep, subnet, kernels or {})
    inputs = pair.inputs()
    if not thorough:
        return pair.compare("2 images", inputs(2), training=False)
    for batch in BATCHES:
        for training in (False, True):
            pair.compare(f"{batch} images", inputs(batch), training)
    if (other := larger(inputs(1))) is not None:
        pair.compare("larger images", other, training=False)
    pair.compare_costs(inputs(1))


def masked(
    analysis: Analysis, keep: np.ndarray, kernels: Mapping[str, int] | None = None
) -> nn.Module:
    """A copy of the dense network whose parameters are zero where those of a subnet are missing."""
    network = copy.deepcopy(analysis.traced)
    with torch.no_grad():
        for name, axes in kept_indices(analysis.graph, keep).items():
            value = attribute(network, name)
            for axis, kept in axes:
                gone = np.setdiff1d(np.arange(value.shape[axis]), kept)
                value.index_fill_(axis, torch.from_numpy(gone).to(value.device), 0)
        for name, outside in rings(network, analysis.graph, kernels or {}).items():
            attribute(network, name).masked_fill_(outside, 0.0)
    return dressed(network)


class _Pair:
    """A masked network and a subnet, copies in double precision where they run so."""

    def __init__(
        self, analysis: Analysis, keep: np.ndarray, subnet: nn.Module, kernels: Mapping[str, int]
    ) -> None:
        self.analysis, self.stays, self.kernels = analysis, np.append(keep, True), kernels
        self.subnet, self.masked = copy.deepcopy(subnet), masked(analysis, keep, kernels)
        self.device = next((p.device for p in subnet.parameters()), torch.device("cpu"))
        self.exact = not any(
            operation_name(node) in _ACROSS and not self._kept(node).all()
            for node in analysis.traced.graph.nodes
        )

    def _kept(self, node: fx.Node) -> np.ndarray:
        """Which channels of an operation's output are left."""
        layout = self.analysis.flow.layouts.get(node)
        if not isinstance(layout, Layout):
            return np.ones(1, dtype=bool)
        return self.stays[self.analysis.units.of(layout.labels)]

    def inputs(self) -> Callable[[int], tuple[Any, ...]]:
        """Return what makes random inputs for so many images, in the precision that both take."""
        nodes = [n for n in self.analysis.traced.graph.nodes if n.op == "placeholder"]
        example = [n.meta["example"] for n in nodes if isinstance(n.meta["example"], Tensor)]
        generator = torch.Generator().manual_seed(0)

        def numbers(batch: int, double: bool) -> tuple[Any, ...]:
            given = [random_inputs(t, batch, self.device, generator) for t in example]
            return tuple(t.double() if double and t.is_floating_point() else t for t in given)

        before = copy.deepcopy(self.masked), copy.deepcopy(self.subnet)
        self.tolerance, double = EXACT, True
        self.masked.double()
        self.subnet.double()
        if self._run(self.masked, numbers(2, True), training=False) is None:
            (self.masked, self.subnet), self.tolerance, double = before, ROUNDED, False
        return lambda batch: numbers(batch, double)

    def compare(self, what: str, given: tuple[Any, ...], training: bool) -> None:
        """Refuse a subnet that gives something else; what the masked network refuses is skipped."""
        expected = self._run(self.masked, given, training)
        if expected is None and training and given[0].ndim == 4:
            given = (*given, example_targets(given[0]))
            expected = self._run(self.masked, given, training)
        if expected is None:
            return
        found = self._run(self.subnet, given, training, catch=False)
        assert found is not None
        mode = "training" if training else "evaluation"
        if [t.shape for t in found] != [t.shape for t in expected]:
            raise _refusal("the network", f"outputs of other shapes ({what}, {mode} mode)")
        if not all(t.isfinite().all() for t in expected):
            return  # such numbers prove nothing
        same = not any(map(self._differs, found, expected)) if self.exact else True
        if same and all(t.isfinite().all() for t in found):
            return
        again = self._run(self.masked, given, training, seed=1) if training else None
        if again is not None and any(map(self._differs, again, expected)):
            return  # random numbers that depend on the width
        part = "the network" if training else self._first(given)
        raise _refusal(part, f"other numbers ({what}, {mode} mode)")

    def compare_costs(self, image: tuple[Any, ...]) -> None:
        """Refuse a subnet that does not save what the graph says; image: inputs of one image.

        Flops are compared where PyTorch counts those of the dense network as the graph does: heads
        of detectors run as often as the data have it, and some operations are never counted.
        """
        graph, keep = self.analysis.graph, self.stays[:-1]
        whole = cost_of_units(graph, np.ones_like(keep))
        left = cost_of_units(shrunk(graph, self.kernels), keep)
        dense, subnet = (self._counted(network, image) for network in (self.masked, self.subnet))
        if dense is None or subnet is None:
            return
        told, counted = _saved(whole, left), _saved(dense, subnet)
        if dense.flops != whole.flops:
            told = replace(told, flops=counted.flops)
        if counted != told:
            raise _refusal(
                "the network",
                f"a saving of {counted.flops} flops and {counted.parameters} parameters, not the "
                f"{told.flops} and {told.parameters} that its graph says",
            )

    def _counted(self, network: nn.Module, image: tuple[Any, ...]) -> Cost | None:
        with FlopCounter() as counter:
            if self._run(network, image, training=False) is None:
                return None
        parameters = sum(p.numel() for p in network.parameters())
        return Cost(counter.get_total_flops() // 2, parameters)

    def _differs(self, found: Tensor, expected: Tensor) -> bool:
        return differs(found, expected, self.tolerance)

    def _run(
        self,
        network: nn.Module,
        given: tuple[Any, ...],
        training: bool,
        seed: int = 0,
        catch: bool = True,
    ) -> list[Tensor] | None:
        """Return what a network gives, without dropout; None where it does not take this."""
        network.train(training)
        buffers = [(b, b.clone()) for b in network.buffers()]  # training would change them
        with torch.no_grad(), torch.random.fork_rng(), _WithoutDropout():
            torch.manual_seed(seed)
            try:
                return tensors(quietly(network)(*given))
            except Exception as error:
                pass_on_shortage(error)
                if catch:
                    return None
                part = scope_of(error.node) if hasattr(error, "node") else "the network"
                raise _refusal(part, f"an error ({first_line(error)})") from error
            finally:
                for buffer, value in buffers:
                    buffer.copy_(value)

    def _first(self, given: tuple[Any, ...]) -> str:
        """Name the first part whose values differ on the channels that are left."""
        pair: tuple[Any, Any] = self.masked, self.subnet
        if not all(isinstance(network, fx.GraphModule) for network in pair):
            return "the network"  # only parts of it are graphs
        values, reached = (_values(network, given) for network in pair)
        for node, found in reached.items():
            original = next((n for n in values if n.name == node.name), None)
            if original is None:
                continue
            expected, source = values[original], self._source(original)
            kept = torch.from_numpy(np.flatnonzero(self._kept(source))).to(expected.device)
            layout = self.analysis.flow.layouts.get(source)
            if isinstance(layout, Layout):
                expected = expected.index_select(layout.axis, kept)
            if found.shape == expected.shape and self._differs(found, expected):
                return scope_of(node) or node.name
        return "the network"

    def _source(self, node: fx.Node) -> fx.Node:
        """The operation of the dense network that an operation of the masked one stands for."""
        return next(n for n in self.analysis.traced.graph.nodes if n.name == node.name)


def _values(network: fx.GraphModule, given: tuple[Any, ...]) -> dict[fx.Node, Tensor]:
    """Every tensor that a traced network computes in evaluation mode."""
    found: dict[fx.Node, Tensor] = {}

    class Remember(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if isinstance(value, Tensor) and n.op != "get_attr":
                found[n] = value.clone()
            return value

    network.eval()
    with torch.no_grad():
        Remember(network).run(*given)
    return found


class _WithoutDropout(TorchFunctionMode):
    """Within: dropout hands on what it reads, since its random numbers depend on the width."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one function of PyTorch."""
        kwargs = dict(kwargs or {})
        if func in _DROPOUTS:
            return args[0] if args else kwargs["input"]
        if func is F.scaled_dot_product_attention:
            if len(args) > 4:
                args = (*args[:4], 0.0, *args[5:])
            else:
                kwargs["dropout_p"] = 0.0
        return func(*args, **kwargs)


def _saved(dense: Cost, subnet: Cost) -> Cost:
    return Cost(dense.flops - subnet.flops, dense.parameters - subnet.parameters)


def _refusal(part: str, how: str) -> UserError:
    return UserError(
        f"the subnet is not the network without the channels of the plan: {part} gives {how}; "
        "nothing was written: protect this part (extract.protect), extract and search again, and "
        "report it as a fault of gnnrl"
    )
