"""Prepare the images and weights of the benchmarks: `benchmarks/data/`, which Git ignores.

    python -m benchmarks.data
    python -m benchmarks.data --images ~/Downloads/cifar-10-python.tar.gz --weights ~/Downloads

Without options CIFAR-10 is downloaded by torchvision (170 MB) and the published weights by their
address; both are checked against their digests.  The benchmarks use a fragment of CIFAR-10: the
first 1,017 images of each of its six batches, 5,085 training and 1,017 test images.

--images takes what is on this machine already: CIFAR-10's archive or the folder
`cifar-10-batches-py`, or any image folder, packed or not, that holds train/<class> and
test/<class>.  An image folder keeps its name below `benchmarks/data/`.
--weights takes a folder with the weight files.  GNNRL_BENCHMARK_DATA names another place.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.harness import DATA, IMAGES, PUBLISHED, WEIGHTS

FIRST, BATCH = 1017, 10_000
"""Images taken from each batch of CIFAR-10, and images in a batch."""
ADDRESS = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/"
SHA256 = {
    "resnet20-12fca82f.th": "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8",
    "resnet56-4bfd9763.th": "4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367",
}
"""Weights by Y. Idelbayev, "Proper ResNet Implementation for CIFAR10/CIFAR100 in PyTorch"."""
CIFAR = "cifar-10-batches-py"


def fragment(root: Path, download: bool) -> None:
    """Write the fragment from torchvision's CIFAR-10 in `root`."""
    from torchvision.datasets import CIFAR10

    try:
        splits = {split: CIFAR10(str(root), split == "train", download=download)
                  for split in ("train", "test")}  # fmt: skip
    except (OSError, RuntimeError) as error:
        raise SystemExit(
            f"CIFAR-10 cannot be had ({error}): download cifar-10-python.tar.gz elsewhere and "
            "give it by --images"
        ) from error
    unfinished = IMAGES.with_name("unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for split, images in splits.items():
        write(unfinished / split, images.data, [images.classes[i] for i in images.targets])
    unfinished.rename(IMAGES)


def write(folder: Path, pixels: np.ndarray, classes: list[str]) -> None:
    """Write the first images of each batch as PNG files, named after batch and position.

    pixels: uint8 `[N, 32, 32, 3]`, batch after batch; classes: the name of each image's class.
    """
    for i in range(len(pixels)):
        batch, position = divmod(i, BATCH)
        if position < FIRST:
            name = "t" if folder.name == "test" else f"b{batch + 1}"
            path = folder / classes[i] / f"{name}_{position:05}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[i]).save(path)


def local_images(source: Path) -> None:
    """Take images from an archive or a folder of this machine."""
    if not source.exists():
        raise SystemExit(f"--images {source} does not exist: give an archive or a folder")
    with tempfile.TemporaryDirectory() as unpacked:
        root = source
        if source.is_file():
            root = Path(unpacked)
            try:
                with tarfile.open(source) as archive:
                    archive.extractall(root, filter="data")
            except (tarfile.TarError, OSError) as error:
                raise SystemExit(f"--images {source} is not a tar archive: {error}") from error
        if source.name == CIFAR:
            root = source.parent
        if (root / CIFAR).is_dir():
            fragment(root, download=False)
        elif (root / "train").is_dir() and (root / "test").is_dir():
            name = source.name.partition(".tar")[0]
            shutil.copytree(root, DATA / name, dirs_exist_ok=True)
            if DATA / name != IMAGES:
                print(f"name these images to a benchmark by --images {DATA / name}")
        else:
            raise SystemExit(
                f"--images {source} holds neither {CIFAR} nor the folders train/<class> and "
                "test/<class>"
            )


def weights(source: Path | None) -> None:
    """Fetch the published weights, or copy them from a folder, and check their digests."""
    WEIGHTS.mkdir(parents=True, exist_ok=True)
    for name in PUBLISHED.values():
        path = WEIGHTS / name
        if not path.exists():
            try:
                if source is None:
                    torch.hub.download_url_to_file(ADDRESS + name, str(path), SHA256[name])
                else:
                    shutil.copyfile(source / name, path)
            except (OSError, RuntimeError) as error:
                raise SystemExit(
                    f"the weights {name} cannot be had ({error}): download {ADDRESS + name} "
                    "elsewhere and give its folder by --weights"
                ) from error
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != SHA256[name]:
            path.unlink()
            raise SystemExit(f"{name} has SHA-256 {found}, expected {SHA256[name]}: removed")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, help="an archive or a folder; default: download")
    parser.add_argument("--weights", type=Path, help="a folder with both; default: download")
    given = parser.parse_args()
    if given.images:
        local_images(given.images.expanduser())
    elif not IMAGES.exists():
        fragment(DATA, download=True)
    weights(given.weights and given.weights.expanduser())
    number = sum(1 for path in DATA.rglob("*.png"))
    print(f"{DATA}: {number} images in PNG files, {len(PUBLISHED)} networks", file=sys.stderr)


if __name__ == "__main__":
    main()
