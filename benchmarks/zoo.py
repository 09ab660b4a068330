"""Networks of other libraries, by name and without weights: what the tables of networks are about.

`python -m benchmarks.zoo` chooses the smallest network of each family of timm and writes
`benchmarks/timm.csv`.  A family is a file of timm and the letters that its networks' names begin
with.  timm and transformers are needed by their own networks only; they are no dependency of the
project: `pip install --no-deps --target FOLDER timm`, and FOLDER on PYTHONPATH.
"""

from __future__ import annotations

import csv
import importlib
import importlib.util
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torchvision.models.video import mvit

from gnnrl.networks.build import NETWORKS, build_network

TIMM = Path(__file__).parent / "timm.csv"
CLASSES = 10
CLIP = (8, 64)
"""Frames and pixels of the multiscale transformers of videos, which have 16 and 224 by default."""
_MVIT = mvit.MViT
_LARGE = re.compile("large|huge|giant|gigant|so400m|_xl|base|_[blh]1[46]|so150m|medium|enormous")
"""Never the smallest of a family that has others."""
_SIDES = (64, 96, 128, 160, 192, 224, 256)

ENCODER = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
           "intermediate_size": 64}  # fmt: skip
PIXELS = {**ENCODER, "image_size": 32, "patch_size": 8}
WORDS = {**ENCODER, "vocab_size": 100, "max_position_embeddings": 40}
TRANSFORMERS: Mapping[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "ViT": (PIXELS, ()),
    "DeiT": (PIXELS, ()),
    "Beit": (PIXELS, ()),
    "Dinov2": (PIXELS, ()),
    "CLIPVision": (PIXELS, ()),
    "ConvNext": ({"hidden_sizes": (16, 24, 32, 40), "depths": (1, 1, 1, 1)}, ()),
    "ResNet": ({"embedding_size": 16, "hidden_sizes": (16, 24), "depths": (1, 1)}, ()),
    "Swin": ({"image_size": 32, "patch_size": 2, "embed_dim": 24, "depths": (2, 2),
              "num_heads": (2, 4), "window_size": 4}, ()),
    "Bert": (WORDS, ("input_ids", "attention_mask", "token_type_ids")),
    "Roberta": (WORDS, ("input_ids", "attention_mask")),
    "Electra": ({**WORDS, "embedding_size": 32}, ("input_ids", "attention_mask")),
    "Albert": ({**WORDS, "embedding_size": 32}, ("input_ids", "attention_mask")),
    "DistilBert": ({"dim": 48, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "vocab_size": 100},
                   ("input_ids", "attention_mask")),
    "GPT2": ({"n_embd": 48, "n_layer": 2, "n_head": 4, "vocab_size": 100, "n_positions": 40,
              "use_cache": False}, ("input_ids",)),
    "Llama": ({**WORDS, "num_key_value_heads": 2, "use_cache": False}, ("input_ids",)),
}  # fmt: skip
"""Configuration (beside it the library's own values) and the inputs of each network; none of
these: an image."""


def names(libraries: tuple[str, ...] = ()) -> list[str]:
    """Return all networks of the libraries (default: of those that are installed, and ours)."""
    found = [f"{library}/{name}" for library, (listed, _) in LIBRARIES.items()
             for name in (listed() if not libraries or library in libraries else ())]  # fmt: skip
    return [*found, *(NETWORKS if not libraries or "own" in libraries else ())]


def build(name: str) -> nn.Module:
    """Return a network by its name in the tables, with fresh weights."""
    if name in NETWORKS:
        return build_network(name, CLASSES, (3, 32, 32))
    library, short = _library_of(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LIBRARIES[library][1](short)


def builder(name: str) -> str:
    """Return what `build_network` takes for a network of the tables."""
    return name if name in NETWORKS else f"{__name__}:{name}"


def __getattr__(name: str) -> Callable[[], nn.Module]:
    """`build_network("benchmarks.zoo:timm/resnet10t")` builds that network."""
    if "/" not in name:
        raise AttributeError(name)
    return partial(build, name)


def example(name: str, images: int = 2) -> Any:
    """Return what a network is called with: small images, videos, or words by their names."""
    if name in NETWORKS:
        return torch.randn(images, 3, 32, 32)
    library, short = _library_of(name)
    if library == "transformers":
        inputs = TRANSFORMERS[short][1]
        if inputs:
            return {key: _words(key, images) for key in inputs}
        side = TRANSFORMERS[short][0].get("image_size", 64)
        return torch.randn(images, 3, side, side)
    if library == "torchvision.video":
        sizes = {"mvit_v1_b": CLIP, "mvit_v2_s": CLIP, "s3d": (16, 224)}
        frames, side = sizes.get(short, (4, 64))
        return torch.randn(images, 3, frames, side, side)
    if library == "torchvision.optical_flow":  # two frames of the least size that RAFT takes
        return tuple(torch.rand(images, 3, 128, 128) for _ in range(2))
    side = int(_timm()[short]["side"]) if library == "timm" else _side(short)
    return torch.randn(images, 3, side, side)


def _side(short: str) -> int:
    """Pixels: the least that a network of torchvision takes without trouble."""
    if short.startswith(("vit", "swin", "maxvit")):
        return 224
    return 96 if short.endswith("inception_v3") else 64


def _words(name: str, sentences: int) -> Tensor:
    if name == "input_ids":
        return torch.randint(3, 100, (sentences, 12))
    return torch.ones(sentences, 12, dtype=torch.long) * (name == "attention_mask")


def _library_of(name: str) -> tuple[str, str]:
    library, _, short = name.partition("/")
    return library, short


def _torchvision(part: str) -> Any:
    return importlib.import_module("torchvision.models" + part)


def _listed(part: str) -> list[str]:
    from torchvision import models

    return models.list_models(module=_torchvision(part))


def _vision(short: str, **arguments: Any) -> nn.Module:
    from torchvision import models

    if short.endswith(("googlenet", "inception_v3")):  # heads that only a special loss would train
        arguments["aux_logits"] = False
    return models.get_model(short, weights=None, num_classes=CLASSES, **arguments)


def _timm() -> dict[str, dict[str, str]]:
    with TIMM.open(newline="", encoding="utf-8") as file:
        return {row["network"]: row for row in csv.DictReader(file)}


def _timm_network(short: str) -> nn.Module:
    import timm

    row = _timm()[short]
    sized = {"img_size": int(row["side"])} if row["sized"] == "yes" else {}
    return timm.create_model(short, num_classes=CLASSES, **sized)


def _transformer(short: str) -> nn.Module:
    import transformers

    settings = TRANSFORMERS[short][0]
    config = getattr(transformers, f"{short}Config")(**settings)
    return getattr(transformers, f"{short}Model")(config)


def _video(short: str) -> nn.Module:
    """A network of videos; multiscale transformers have a size of clip built in."""
    with mock.patch.object(mvit, "MViT", _small_clips):
        return _vision(short)


def _small_clips(**arguments: Any) -> nn.Module:
    frames, side = CLIP
    return _MVIT(**{**arguments, "temporal_size": frames, "spatial_size": (side, side)})


def _installed(module: str, found: Callable[[], list[str]]) -> Callable[[], list[str]]:
    return lambda: found() if importlib.util.find_spec(module) else []


LIBRARIES: Mapping[str, tuple[Callable[[], list[str]], Callable[[str], nn.Module]]] = {
    "torchvision": (
        partial(_listed, ""),
        lambda short: build_network(f"torchvision/{short}", CLASSES, (3, *[_side(short)] * 2)),
    ),
    "torchvision.segmentation": (
        partial(_listed, ".segmentation"),
        partial(_vision, weights_backbone=None),
    ),
    "torchvision.video": (partial(_listed, ".video"), _video),
    "torchvision.optical_flow": (
        partial(_listed, ".optical_flow"),
        lambda short: _torchvision("").get_model(short, weights=None),
    ),
    "torchvision.quantization": (
        partial(_listed, ".quantization"),
        partial(_vision, quantize=False),
    ),
    "timm": (_installed("timm", lambda: list(_timm())), _timm_network),
    "transformers": (_installed("transformers", lambda: list(TRANSFORMERS)), _transformer),
}  # fmt: skip
"""How each library's networks are listed, and how one of them is built."""


def _families() -> dict[tuple[str, str], list[str]]:
    """Return the networks of each family: a file of timm, and the first letters of names."""
    import timm

    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in timm.list_models():
        start = re.match("[a-z]+", name)
        assert start is not None
        if start[0] not in ("test", "tf"):
            found[timm.models._registry._model_to_module[name], start[0]].append(name)
    return found


def _smallest(networks: list[str]) -> str | None:
    """Return the network of the fewest parameters that can be built."""
    import timm

    best: tuple[int, str] | None = None
    for name in [n for n in networks if not _LARGE.search(n)] or networks:
        try:
            with torch.device("meta"):
                network = timm.create_model(name, num_classes=CLASSES)
        except Exception:  # such as one that wants weights of the net
            continue
        found = (sum(p.numel() for p in network.parameters()), name)
        best = found if best is None else min(best, found)
    return best[1] if best else None


def _sizes(name: str) -> Iterator[tuple[int, bool]]:
    """Yield the sides of images that a network takes, the smallest first, and whether it must be
    built for them."""
    import timm

    for side in _SIDES:
        for sized in ({}, {"img_size": side}):
            try:
                with torch.device("meta"):
                    network = timm.create_model(name, num_classes=CLASSES, **sized).eval()
                    network(torch.zeros(2, 3, side, side))
            except Exception:  # it takes others
                continue
            yield side, bool(sized)


def main() -> None:
    """Choose timm's networks."""
    warnings.simplefilter("ignore")
    with TIMM.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("network", "family", "side", "sized"))
        for (module, _), networks in sorted(_families().items()):
            name = _smallest(networks)
            side, sized = next(_sizes(name), (None, False)) if name else (None, False)
            if name and side:
                writer.writerow((name, module, side, "yes" if sized else "no"))
                file.flush()


if __name__ == "__main__":
    main()
