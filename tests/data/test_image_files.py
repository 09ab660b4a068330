"""Image files of every kind are read as they are meant to be seen, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from gnnrl.data.files import Decoder, list_files
from gnnrl.data.load import DataRecipe, load_data
from gnnrl.errors import UserError

GREY, COLOUR = Decoder((1, 8, 8)), Decoder((3, 8, 8))


def put(path: Path, image: Image.Image, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("decode", [GREY, COLOUR])
def test_16_bits_are_scaled_to_8(tmp_path, suffix, decode):
    for value in (0, 20000, 65535):
        image = Image.fromarray(np.full((8, 8), value, np.uint16))
        read = decode(put(tmp_path / f"{value}.{suffix}", image))
        assert (read == round(value / 257)).all()


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_other_numbers_are_refused(tmp_path, kind):
    path = put(tmp_path / "deep.tif", Image.fromarray(np.full((8, 8), 1e6, kind)))
    with pytest.raises(UserError, match=r"deep\.tif cannot be read .*expected 8 or 16"):
        GREY(path)


def test_a_photo_is_turned_as_its_tag_says(tmp_path):
    image = Image.new("RGB", (8, 8), "black")
    ImageDraw.Draw(image).rectangle((0, 0, 8, 3), "white")
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    read = GREY(put(tmp_path / "photo.jpg", image, exif=exif, quality=100))
    assert read[0, :4].max() < 20
    assert read[0, 4:].min() > 235


@pytest.mark.parametrize("decode", [GREY, COLOUR])
def test_a_shape_in_the_alpha_channel_is_seen_before_white(tmp_path, decode):
    alpha = np.zeros((8, 8), np.uint8)
    alpha[2:6, 2:6] = 255
    image = Image.new("RGBA", (8, 8))
    image.putalpha(Image.fromarray(alpha))
    read = decode(put(tmp_path / "icon.png", image))
    assert (read == 255 - alpha).all()


def test_images_of_all_kinds_and_in_folders_below_are_found(tmp_path):
    names = "0.png 1.jpg 2.JPEG 3.webp 4.bmp 5.tif 6.tiff more/7.png more/still/8.webp".split()
    for name in names:
        put(tmp_path / "a" / name, Image.new("RGB", (8, 8)))
    assert [str(p.relative_to(tmp_path / "a")) for p in list_files([tmp_path / "a"]).paths] == names


def test_files_left_out_are_counted(tmp_path):
    put(tmp_path / "a" / "0.png", Image.new("RGB", (8, 8)))
    for name in ("1.npy", "2.npy", "notes"):
        (tmp_path / "a" / name).write_bytes(b"")
    (tmp_path / "a" / ".hidden").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"3 files in .*a are left out.*\(2 \.npy, 1 notes\)"):
        assert len(list_files([tmp_path / "a"]).paths) == 1


def test_one_class_is_refused(tmp_path):
    for split in ("train", "test"):
        put(tmp_path / split / "only" / "0.png", Image.new("RGB", (8, 8)))
    with pytest.raises(UserError, match="holds one class \\('only'\\)"):
        load_data(DataRecipe("image_folder", str(tmp_path)), (3, 8, 8))
