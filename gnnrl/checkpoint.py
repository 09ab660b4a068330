"""A network on disk: its weights, and in the header how to build it and what was cut from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gnnrl.errors import UserError
from gnnrl.files import atomic_write
from gnnrl.shapes import Shape, as_shape

if TYPE_CHECKING:
    from gnnrl.pruning.plan import PruningPlan

HEADER = "gnnrl"  # the one key of the header: with several, safetensors has no fixed order


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Enough to build the network again and to fill it.

    name, num_classes, input_shape: what `build_network` is called with.
    state: the weights and buffers, as in `state_dict`.
    plans: the pruning plans which made it what it is, in turn, as `PruningPlan.to_json` gives them.
    protected: for each plan, the parts that were protected as the graph it is a plan of was read.
    epoch: after how many epochs of pretraining it was kept; None where that means nothing.
    """

    name: str
    num_classes: int
    input_shape: Shape
    state: Mapping[str, Tensor]
    plans: tuple[Mapping[str, Any], ...] = ()
    protected: tuple[tuple[str, ...], ...] = ()
    epoch: int | None = None

    @classmethod
    def of(
        cls,
        network: nn.Module,
        name: str,
        num_classes: int,
        input_shape: Shape,
        epoch: int | None = None,
    ) -> Checkpoint:
        """Return a checkpoint of the uncut network as it is now."""
        state = _copied(network.state_dict())
        return cls(name, num_classes, as_shape(input_shape), state, epoch=epoch)

    def following(
        self,
        network: nn.Module,
        plan: PruningPlan | None = None,
        protected: Iterable[str] = (),
        epoch: int | None = None,
    ) -> Checkpoint:
        """Return a checkpoint of what became of this one's network: trained, or cut by a plan.

        protected: as in the graph that the plan is of.
        """
        trained = replace(self, state=_copied(network.state_dict()), epoch=epoch)
        if plan is None:
            return trained
        cuts = (*self.protected, tuple(protected))
        return replace(trained, plans=(*self.plans, plan.to_json()), protected=cuts)

    def restore(self) -> nn.Module:
        """Return the network on the CPU, ready for evaluation. Draws no random numbers."""
        from gnnrl.networks.build import build_network

        with torch.random.fork_rng(devices=[]):
            network = build_network(self.name, self.num_classes, self.input_shape)
        for plan, protected in zip(self.plans, self.protected, strict=True):
            network = self._cut(network.eval(), plan, protected)
        try:
            network.load_state_dict(self.state)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise UserError(
                f"the checkpoint's weights do not fit {self.name} ({reason}): it was made by "
                "other code or edited, make it again"
            ) from error
        return network.eval()

    def _cut(
        self, network: nn.Module, plan: Mapping[str, Any], protected: tuple[str, ...]
    ) -> nn.Module:
        from gnnrl.graph.extract import extract
        from gnnrl.pruning.plan import PruningPlan
        from gnnrl.pruning.surgery import prune

        graph = extract(network, torch.zeros(1, *self.input_shape), protected)
        return prune(network, graph, PruningPlan.from_json(plan))

    def save(self, path: str | Path) -> None:
        """Write it whole or not at all; the same checkpoint gives the same bytes."""
        atomic_write(path, self._bytes())

    @classmethod
    def load(cls, path: str | Path) -> Checkpoint:
        """Read what `save` wrote."""
        from safetensors import SafetensorError, safe_open

        if not Path(path).is_file():
            raise UserError(f"there is no checkpoint at {path}: run the stage that makes it first")
        try:
            with safe_open(path, framework="pt") as file:
                recipe = json.loads((file.metadata() or {})[HEADER])
                state = {key: file.get_tensor(key) for key in file.keys()}
            return cls(state=state, **_checked(recipe))
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(
                f"{path} is no usable checkpoint ({reason}): run the stage that makes it again"
            ) from error

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
        state = {key: value.contiguous() for key, value in self.state.items()}
        return save(state, {HEADER: json.dumps(recipe, sort_keys=True)})


def _copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies on the CPU: safetensors refuses weights which share their memory."""
    return {key: value.detach().to("cpu", copy=True).contiguous() for key, value in state.items()}


def _checked(recipe: Any) -> dict[str, Any]:
    """Return the fields of a recipe; raise where one misses or is of another type."""
    shape, plans, epoch = recipe["input_shape"], recipe["plans"], recipe["epoch"]
    protected = tuple(tuple(names) for names in recipe["protected"])
    right = (
        isinstance(recipe["name"], str)
        and isinstance(recipe["num_classes"], int)
        and len(shape) == 3
        and all(isinstance(size, int) for size in shape)
        and all(isinstance(plan, dict) for plan in plans)
        and len(protected) == len(plans)
        and (epoch is None or isinstance(epoch, int))
    )
    if not right:
        raise ValueError(f"its recipe reads {recipe}")
    tuples = {"input_shape": tuple(shape), "plans": tuple(plans), "protected": protected}
    return {**recipe, **tuples}
