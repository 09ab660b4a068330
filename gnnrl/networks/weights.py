"""Trained weights for a network: by torchvision's name, by path, or by address and digest."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from gnnrl.errors import UserError
from gnnrl.files import user_path
from gnnrl.networks.build import TORCHVISION

State: TypeAlias = Mapping[str, Tensor]

WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys under which others keep the weights
PREFIXES = ("module.", "_orig_mod.")  # put before every key by DataParallel and torch.compile


def load_weights(
    network: nn.Module, source: str, *, name: str = "", sha256: str | None = None
) -> None:
    """Put trained weights into the network.

    source: a file (.pt, .pth, .th, .safetensors), an address (then with its SHA-256), or, for a
    network called "torchvision/...", the name of its weights, as DEFAULT or IMAGENET1K_V1. Those of
    GoogLeNet and Inception v3 expect images normalised with mean and std 0.5.
    """
    state: State
    if re.match(r"https?://", source):
        state = read_weights(_fetched(source, sha256))
    elif name.startswith(TORCHVISION) and re.fullmatch(r"[A-Z][A-Z0-9_]*", source):
        state = _torchvision(name.removeprefix(TORCHVISION), source)
    else:
        state = read_weights(user_path(source))
    fit(network, state, source)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the weights in a file, without wrappers and prefixes. Nothing pickled is executed."""
    if not path.is_file():
        raise UserError(
            f"there are no weights at {path}: give a file (.pt, .pth, .th, .safetensors), an "
            "address with its SHA-256, or the name of torchvision's weights"
        )
    read = READERS.get(path.suffix, _read_torch)
    try:
        content = read(path)
    except Exception as error:  # each reader has its own exceptions, and all mean the same here
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UserError(
            f"{path} cannot be read as weights ({reason}): save a plain state_dict with torch.save "
            "or safetensors"
        ) from error
    return _unwrapped(content, path)


def _read_torch(path: Path) -> object:
    return torch.load(path, map_location="cpu", weights_only=True)


def _read_safetensors(path: Path) -> object:
    from safetensors.torch import load_file

    return load_file(path)


READERS: Mapping[str, Callable[[Path], object]] = {".safetensors": _read_safetensors}


def _unwrapped(content: object, path: Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        inner = next((content[key] for key in WRAPPERS if key in content), None)
        if not isinstance(inner, Mapping):
            break
        content = inner
    if not isinstance(content, Mapping) or not any(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise UserError(
            f"{path} holds no weights but {type(content).__name__}: expected a state_dict, plain "
            f"or under one of {', '.join(WRAPPERS)}"
        )
    state = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    for prefix in PREFIXES:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def fit(network: nn.Module, state: State, source: str) -> None:
    """Load weights which fit exactly; only counters of batch norms may miss."""
    wanted = network.state_dict()
    counters = {key for key in wanted if key.endswith("num_batches_tracked")}
    faults = [
        ("missing", _some(wanted.keys() - state.keys() - counters)),
        ("unknown", _some(state.keys() - wanted.keys())),
        (
            "of another shape",
            _some(
                f"{key} {tuple(state[key].shape)} instead of {tuple(wanted[key].shape)}"
                for key in wanted.keys() & state.keys()
                if state[key].shape != wanted[key].shape
            ),
        ),
    ]
    said = "; ".join(f"{kind}: {which}" for kind, which in faults if which)
    if said:
        raise UserError(
            f"the weights {source} do not fit the network ({said}): give the weights of this "
            "network, with the same number of classes"
        )
    network.load_state_dict(state, strict=False)


def _some(names: Iterable[str], shown: int = 3) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - shown} more" if len(ordered) > shown else ""
    return ", ".join(ordered[:shown]) + more


def _torchvision(network: str, weights: str) -> State:
    from torchvision import models

    known = models.get_model_weights(network).__members__
    if weights not in known:
        raise UserError(
            f"torchvision has no weights {weights!r} for {network}: known are {', '.join(known)}"
        )
    try:
        state = known[weights].get_state_dict(progress=False, check_hash=True, map_location="cpu")
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"torchvision's weights {weights} of {network} cannot be fetched ({error}): try again "
            "with a connection, or give the path of a file"
        ) from error
    return {key: value for key, value in state.items() if not re.match(r"aux", key, re.IGNORECASE)}


def _fetched(address: str, sha256: str | None) -> Path:
    """Return the file behind an address, from PyTorch's cache where it is there already."""
    if not sha256 or not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise UserError(
            f"weights from {address} need their SHA-256 (64 hexadecimal digits), got {sha256!r}"
        )
    path = (
        Path(torch.hub.get_dir()) / "checkpoints" / (sha256 + Path(urlparse(address).path).suffix)
    )
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(address, str(path), hash_prefix=sha256, progress=False)
        except (OSError, RuntimeError) as error:
            raise UserError(f"weights from {address} cannot be fetched: {error}") from error
    return path
