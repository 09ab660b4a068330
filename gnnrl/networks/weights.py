"""Trained weights for a network: by name, by path, or by address and digest."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlparse
from urllib.request import urlopen

import torch
from filelock import FileLock
from torch import Tensor, nn

from gnnrl.errors import UserError, first_line
from gnnrl.files import user_path
from gnnrl.networks.build import TORCHVISION
from gnnrl.networks.catalogue import CATALOGUE, Published
from gnnrl.sealed import refuse_compressed

State: TypeAlias = Mapping[str, Tensor]

WRAPPERS = (
    *("state_dict", "model_state_dict", "model", "net", "network", "params", "weights"),
    *("ema_state_dict", "model_ema", "ema"),
)
"""Keys under which others keep the weights, the trained ones before their running averages."""
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
"""Put before every key by DataParallel, torch.compile, Lightning and others."""
NAMED = re.compile(r"[A-Z][A-Z0-9_]*")
"""Names of weights; all else is a file or an address."""
SECONDS = 30.0  # that a server may be silent
LARGEST = 20 * 2**30  # bytes of a download


def load_weights(
    network: nn.Module, source: str, *, name: str = "", sha256: str | None = None
) -> None:
    """Put trained weights into the network.

    source: a file (.pt, .pth, .th, .safetensors), an address (then with its SHA-256), or the name
    of weights: for a network called "torchvision/...", torchvision's, as DEFAULT or IMAGENET1K_V1;
    for another one, those of `CATALOGUE`, as CIFAR10. Those of GoogLeNet and Inception v3 expect
    images normalised with mean and std 0.5.
    """
    state: State
    if name.startswith(TORCHVISION) and NAMED.fullmatch(source):
        state = _torchvision(name.removeprefix(TORCHVISION), source)
    elif name and NAMED.fullmatch(source):
        published = _published(name, source)
        state = read_weights(_fetched(published.address, published.sha256))
    else:
        state = read_weights(weights_file(source, sha256))
    fit(network, state, source)


def weights_file(source: str, sha256: str | None = None) -> Path:
    """Return the file that a path or an address names; what is behind an address is fetched."""
    if not re.match(r"https?://", source):
        return user_path(source)
    if not sha256 or not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise UserError(
            f"weights from {source} need their SHA-256 (64 hexadecimal digits), got {sha256!r}"
        )
    return _fetched(source, sha256)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the weights in a file, without wrappers and prefixes. Nothing pickled is executed."""
    if not path.is_file():
        raise UserError(
            f"there are no weights at {path}: give a file (.pt, .pth, .th, .safetensors), an "
            "address with its SHA-256, or the name of published weights"
        )
    read = READERS.get(path.suffix, _read_torch)
    try:
        content = read(path)
    except Exception as error:  # each reader has its own exceptions, and all mean the same here
        raise UserError(
            f"{path} cannot be read as weights ({first_line(error)[:120]}): save a plain "
            "state_dict with torch.save or safetensors"
        ) from error
    return _unwrapped(content, path)


def _read_torch(path: Path) -> object:
    refuse_compressed(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported global" in str(error):
            whole = "it holds more than numbers, as a whole pickled network does"
            raise ValueError(whole) from error
        raise


def _read_safetensors(path: Path) -> object:
    from safetensors.torch import load_file

    return load_file(path)


READERS: Mapping[str, Callable[[Path], object]] = {".safetensors": _read_safetensors}


def _unwrapped(content: object, path: Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        inner = [content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)]
        if not inner:
            break
        content = inner[0]
    if not isinstance(content, Mapping) or not any(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise UserError(
            f"{path} holds no weights but {type(content).__name__}: expected a state_dict, plain "
            f"or under one of {', '.join(WRAPPERS)}"
        )
    state = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    odd = [k for k, v in state.items() if not isinstance(k, str) or v.layout != torch.strided]
    odd += [key for key, value in state.items() if value.is_meta or value.is_quantized]
    if odd:
        raise UserError(
            f"{path} holds {odd[0]!r}, which is no plain named tensor: save a state_dict of the "
            "network in float32"
        )
    return state


def _bare(state: State, wanted: Iterable[str]) -> State:
    """Return weights without the prefixes that the network does not have, and without the counter
    of an averaged model."""
    names = set(wanted)
    state = {k: v for k, v in state.items() if k in names or k.split(".")[-1] != "n_averaged"}
    while prefix := next((p for p in PREFIXES if _wraps(p, state, names)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _wraps(prefix: str, state: State, names: set[str]) -> bool:
    """Whether all keys start with a prefix, and the network's do not."""
    everywhere = bool(state) and all(key.startswith(prefix) for key in state)
    return everywhere and not all(name.startswith(prefix) for name in names)


def refuse_nonfinite(network: nn.Module, source: str) -> None:
    """Raise `UserError` for parameters that are not finite and buffers that are NaN.

    A buffer may be infinite: it may be the mask of an attention.
    """
    found = [name for name, value in network.named_parameters() if not value.isfinite().all()]
    found += [name for name, value in network.named_buffers() if value.isnan().any()]
    if found:
        raise UserError(
            f"{source} holds NaN or infinite values in {_some(found)}: give weights that are "
            "finite, such as of an earlier epoch"
        )


def fit(network: nn.Module, state: State, source: str) -> None:
    """Load weights which fit exactly and are finite; only counters of batch norms may miss."""
    wanted = network.state_dict()
    state = _bare(state, wanted)
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
        (
            "of another kind",
            _some(
                f"{key} {state[key].dtype} instead of {wanted[key].dtype}"
                for key in wanted.keys() & state.keys()
                if wanted[key].is_floating_point() != state[key].is_floating_point()
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
    refuse_nonfinite(network, f"the file of weights {source}")


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
    address = known[weights].url
    cached = _cache() / Path(urlparse(address).path).name
    prefix = cached.stem.rpartition("-")[2]
    if cached.exists() and re.fullmatch(r"[0-9a-f]{8,64}", prefix):
        if not _sha256(cached).startswith(prefix):
            cached.unlink()  # changed since it was fetched
    try:
        state = known[weights].get_state_dict(progress=False, check_hash=True, map_location="cpu")
    except (OSError, RuntimeError, HTTPException) as error:
        raise UserError(
            f"torchvision's weights {weights} of {network} cannot be fetched ({error}): try again "
            "with a connection, or give the path of a file"
        ) from error
    return {key: value for key, value in state.items() if not re.match(r"aux", key, re.IGNORECASE)}


def _published(network: str, weights: str) -> Published:
    known = CATALOGUE.get(network, {})
    if weights not in known:
        raise UserError(
            f"there are no published weights {weights!r} for {network}: known are "
            f"{', '.join(known) or 'none'}; give a file, or an address with its SHA-256"
        )
    return known[weights]


def _fetched(address: str, sha256: str) -> Path:
    """Return the file behind an address, from PyTorch's cache where it is there already.

    sha256: how the digest of the file begins.
    """
    path = _cache() / (sha256 + Path(urlparse(address).path).suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists() or not _sha256(path).startswith(sha256):
            _download(address, path, sha256)
    return path


def _cache() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(2**20):
            found.update(chunk)
    return found.hexdigest()


def _download(address: str, path: Path, sha256: str) -> None:
    """Fetch a file whose digest begins so; a killed download leaves one partial file at most."""
    partial = path.with_name(f"{path.name}.part")
    try:
        size = 0
        with urlopen(address, timeout=SECONDS) as answer, open(partial, "wb") as file:
            while chunk := answer.read(2**20):
                size += len(chunk)
                if size > LARGEST:
                    raise OSError(f"it has more than {LARGEST // 2**30} GB")
                file.write(chunk)
        if not (found := _sha256(partial)).startswith(sha256):
            raise OSError(f"its SHA-256 is {found}, expected {sha256}")
        os.replace(partial, path)
    except (OSError, ValueError, HTTPException) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(
            f"weights from {address} cannot be fetched ({reason}): check the address and the "
            "connection, or give the path of a file"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
