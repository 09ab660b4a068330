"""A network on disk: its weights, and in the header how to build it and what was cut from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gnnrl.errors import UserError
from gnnrl.files import atomic_write, parse_json
from gnnrl.registry import is_own
from gnnrl.sealed import CHANGED, opened, sealed, tensors_digest
from gnnrl.shapes import Shape, as_shape

if TYPE_CHECKING:
    from gnnrl.graph.graph import ComputationalGraph
    from gnnrl.pruning.plan import PruningPlan

HEADER = "gnnrl"  # the one key of the header: with several, safetensors has no fixed order

MAKERS = ("pretrain", "prune", "train")  # stages that write checkpoints, each in its folder


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Enough to build the network again and to fill it.

    name, num_classes, input_shape: what `build_network` is called with.
    state: the weights and buffers, as in `state_dict`.
    plans: the pruning plans which made it what it is, in turn, as `PruningPlan.to_json` gives them.
    protected: for each plan, the parts that were protected as the graph it is a plan of was read.
    epoch: after how many epochs of pretraining it was kept; None where that means nothing.
    inputs: type and shape of one example of each input, as in `ComputationalGraph.inputs`; of one
    input without a name where it is called ""; empty: an image of `input_shape`.
    settings: for each plan, how attention was read in the graph it is a plan of; empty: as usual.
    trusted: whether `restore` may import `name` where it is `package.module:name`.
    """

    name: str
    num_classes: int
    input_shape: Shape
    state: Mapping[str, Tensor]
    plans: tuple[Mapping[str, Any], ...] = ()
    protected: tuple[tuple[str, ...], ...] = ()
    epoch: int | None = None
    inputs: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    settings: tuple[Mapping[str, Any], ...] = ()
    trusted: bool = True

    @classmethod
    def of(
        cls,
        network: nn.Module,
        name: str,
        num_classes: int = 10,
        input_shape: Shape = (3, 32, 32),
        epoch: int | None = None,
    ) -> Checkpoint:
        """Return a checkpoint of the uncut network as it is now."""
        state = _copied(network.state_dict())
        return cls(name, num_classes, as_shape(input_shape), state, epoch=epoch)

    def following(
        self,
        network: nn.Module,
        plan: PruningPlan | None = None,
        graph: ComputationalGraph | None = None,
        epoch: int | None = None,
    ) -> Checkpoint:
        """Return a checkpoint of what became of this one's network: trained, or cut by a plan.

        graph: that the plan is of; needed where it was not read as usual (parts protected, other
        settings, other inputs than an image of `input_shape`).
        """
        trained = replace(self, state=_copied(network.state_dict()), epoch=epoch)
        if plan is None:
            return trained
        inputs, settings = (
            dict(graph.inputs if graph else {}),
            dict(graph.settings if graph else {}),
        )
        if graph and not inputs and graph.input_shape != self.input_shape:
            inputs[""] = ("float32", *graph.input_shape)
        known = self.settings or ({},) * len(self.plans)
        return replace(
            trained,
            plans=(*self.plans, plan.to_json()),
            protected=(*self.protected, graph.protected if graph else ()),
            inputs=inputs,
            settings=(*known, settings) if settings or self.settings else (),
        )

    def restore(self) -> nn.Module:
        """Return the network on the CPU, ready for evaluation. Draws no random numbers.

        Raises `UserError` where weights do not fit or are not finite, and where the checkpoint
        names code to import that nobody vouched for (`load`).
        """
        from gnnrl.networks.build import build_network
        from gnnrl.networks.weights import refuse_nonfinite

        if is_own(self.name) and not self.trusted:
            raise UserError(
                f"the checkpoint names code to run, {self.name!r}: if you trust it, set "
                "network.name to it, or load it by Checkpoint.load(path, trust=True)"
            )
        with torch.random.fork_rng(devices=[]):
            network = build_network(self.name, self.num_classes, self.input_shape)
        for number in range(len(self.plans)):
            network = self._cut(network.eval(), number)
        try:
            network.load_state_dict(self.state)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise UserError(
                f"the checkpoint's weights do not fit {self.name} ({reason}): it was made by "
                "other code or edited, make it again"
            ) from error
        refuse_nonfinite(network, f"the checkpoint of {self.name}")
        return network.eval()

    def refuse_other(self, dense: Checkpoint) -> None:
        """Raise `UserError` where this is not a subnet of the dense network."""
        mine = (self.name, self.num_classes, self.input_shape, self.plans[: len(dense.plans)])
        other = (dense.name, dense.num_classes, dense.input_shape, dense.plans)
        if mine != other:
            raise UserError(
                f"the subnet ({self.name}, {self.num_classes} classes, images of "
                f"{self.input_shape}) is not cut from the dense network ({dense.name}, "
                f"{dense.num_classes} classes, images of {dense.input_shape}): give checkpoints "
                "of one run"
            )

    def refuse_graph(self, graph: ComputationalGraph) -> None:
        """Raise `UserError` where a graph was read at another size of images."""
        if graph.input_shape != self.input_shape:
            raise UserError(
                f"the graph was extracted at images of {graph.input_shape}, the checkpoint is for "
                f"{self.input_shape}: extract it again (`python -m stages.extract`)"
            )

    def _cut(self, network: nn.Module, number: int) -> nn.Module:
        """The network after the plan of this number."""
        from gnnrl.graph.extract import extract
        from gnnrl.pruning.plan import PruningPlan
        from gnnrl.pruning.surgery import prune

        settings = self.settings[number] if self.settings else {}
        graph = extract(network, self._example(), self.protected[number], **settings)
        return prune(network, graph, PruningPlan.from_json(self.plans[number]))

    def _example(self) -> Any:
        """What the network is read on: zeros."""
        if not self.inputs:
            return torch.zeros(1, *self.input_shape)
        made = {
            name: torch.zeros(1, *shape, dtype=getattr(torch, kind))
            for name, (kind, *shape) in self.inputs.items()
        }
        return made.get("", made)

    def save(self, path: str | Path) -> None:
        """Write it whole or not at all; the same checkpoint gives the same bytes."""
        atomic_write(path, self._bytes())

    @classmethod
    def load(cls, path: str | Path, trust: bool | str = False) -> Checkpoint:
        """Read what `save` wrote; refuse a file that was changed. Nothing it names is imported.

        trust: whether `restore` may import the user's own code that the file names: True, or the
        one name that is trusted (`network.name` of params.yaml).
        """
        from safetensors import SafetensorError, safe_open

        if not Path(path).is_file():
            folder = Path(path).absolute().parent.name  # a stage's, in a run's folder
            made = f"`python -m stages.{folder}`" if folder in MAKERS else "the stage that makes it"
            raise UserError(f"there is no checkpoint at {path}: run {made} first")
        try:
            with safe_open(path, framework="pt") as file:
                recipe = opened(parse_json((file.metadata() or {})[HEADER]))
                state = {key: file.get_tensor(key) for key in file.keys()}
            if recipe.pop("tensors", None) not in (None, tensors_digest(state)):
                raise UserError(CHANGED)
            found = cls(state=state, **_checked(recipe))
        except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(
                f"{path} is no usable checkpoint ({reason}): run the stage that makes it again"
            ) from error
        return replace(found, trusted=trust is True or trust == found.name)

    @staticmethod
    def is_at(path: str | Path) -> bool:
        """Whether a safetensors file is a checkpoint of ours, by its header."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                return HEADER in (file.metadata() or {})
        except (SafetensorError, OSError):
            return False

    @property
    def opaque(self) -> tuple[str, ...]:
        """Parts to protect wherever the network as it is now is read."""
        return self.protected[-1] if self.protected else ()

    @property
    def digest(self) -> str:
        """SHA-256 of the bytes that `save` writes."""
        return hashlib.sha256(self._bytes()).hexdigest()

    def _bytes(self) -> bytes:
        from safetensors.torch import save

        recipe = {
            "name": self.name,
            "num_classes": self.num_classes,
            "input_shape": list(self.input_shape),
            "plans": [dict(plan) for plan in self.plans],
            "protected": self.protected,
            "epoch": self.epoch,
        }
        recipe |= {"inputs": dict(self.inputs)} if self.inputs else {}
        recipe |= {"settings": [dict(each) for each in self.settings]} if self.settings else {}
        state = {key: value.contiguous() for key, value in self.state.items()}
        content = sealed({**recipe, "tensors": tensors_digest(state)})
        return save(state, {HEADER: json.dumps(content, sort_keys=True)})


def _copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies on the CPU: safetensors refuses weights which share their memory."""
    return {key: value.detach().to("cpu", copy=True).contiguous() for key, value in state.items()}


def _checked(recipe: Any) -> dict[str, Any]:
    """Return the fields of a recipe; raise where one misses or is of another type."""
    shape, plans, epoch = recipe["input_shape"], recipe["plans"], recipe["epoch"]
    protected = tuple(tuple(names) for names in recipe["protected"])
    inputs = {name: tuple(each) for name, each in recipe.get("inputs", {}).items()}
    settings = tuple(recipe.get("settings", ()))
    right = (
        isinstance(recipe["name"], str)
        and type(recipe["num_classes"]) is int
        and len(shape) == 3
        and all(type(size) is int for size in shape)
        and all(isinstance(plan, dict) for plan in plans)
        and len(protected) == len(plans)
        and (epoch is None or (type(epoch) is int and epoch >= 0))
        and all(_is_input(each) for each in inputs.values())
        and len(settings) in (0, len(plans))
        and all(isinstance(each, dict) for each in settings)
    )
    if not right:
        raise ValueError(f"its recipe reads {recipe}")
    tuples = {"input_shape": tuple(shape), "plans": tuple(plans), "protected": protected}
    return {**recipe, **tuples, "inputs": inputs, "settings": settings}


def _is_input(described: tuple[Any, ...]) -> bool:
    """Whether it is the name of a type of numbers, and sizes."""
    kind, *shape = described
    return isinstance(getattr(torch, str(kind), None), torch.dtype) and all(
        type(size) is int for size in shape
    )
