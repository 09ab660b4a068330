"""A network as operations: read as one graph, or part by part where its own code is none."""

from __future__ import annotations

from typing import Any

from torch import fx, nn

from gnnrl.errors import UserError, first_line
from gnnrl.tracing.check import check
from gnnrl.tracing.joined import Shell
from gnnrl.tracing.shell import join
from gnnrl.tracing.trace import named_inputs, trace


def read_network(
    network: nn.Module, example: Any, opaque: frozenset[str] = frozenset()
) -> fx.GraphModule:
    """The operations of a network, as `trace` gives them.

    Where the network's own code cannot be traced, those of its parts are joined by what a run
    shows flowing between them (`gnnrl.tracing.shell`).  Raises `UserError` where no part can be
    read either.
    """
    named_inputs(network, example)
    try:
        return trace(network, example, opaque)
    except UserError as error:
        try:
            joined = join(network, example, opaque, getattr(error, "why", _reason(error)))
        except UserError:
            raise error from None
        if not joined.meta["shell"].parts:
            raise
        return joined


def _reason(error: UserError) -> str:
    """What an error says of a whole network, without its name and without advice."""
    return first_line(error).partition(": ")[2].partition("; ")[0] or "its code is no graph"


def check_read(network: nn.Module, traced: fx.GraphModule, example: Any) -> None:
    """Compare what was read of a network, or of each of its parts, with the network.

    Raises `UserError` as `check` does.
    """
    shell: Shell | None = traced.meta.get("shell")
    if shell is None:
        return check(network, traced, example)
    for part in shell.parts.values():
        check(network.get_submodule(part.name), part.traced, dict(part.example))
