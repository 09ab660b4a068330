"""Make the images of the zoo: a fragment of an image folder at 16x16 pixels.

    python -m zoo.images --images FOLDER

FOLDER holds train/<class> and test/<class>, such as CIFAR-10 (`python -m benchmarks.data`).  The
first images of each class, by name, are taken.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from PIL import Image

from gnnrl.data.files import Decoder

SHAPE = (3, 16, 16)
COUNTS = {"train": 1200, "test": 300}
"""Images of each class."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="folder with train and test")
    parser.add_argument("--out", type=Path, default=Path("zoo/artifacts/images"))
    given = parser.parse_args()
    decode = Decoder(SHAPE)
    shutil.rmtree(given.out, ignore_errors=True)
    for split, count in COUNTS.items():
        if not (given.images / split).is_dir():
            raise SystemExit(f"{given.images / split} does not exist: give another --images")
        for folder in sorted(path for path in (given.images / split).iterdir() if path.is_dir()):
            place = given.out / split / folder.name
            place.mkdir(parents=True)
            for path in sorted(folder.iterdir())[:count]:
                pixels = decode(path).transpose(1, 2, 0)
                Image.fromarray(pixels).save(place / f"{path.stem}.png")


if __name__ == "__main__":
    main()
