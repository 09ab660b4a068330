from __future__ import annotations

import pytest
import torch

from gnnrl.data.augmentations import AUGMENTATIONS
from gnnrl.data.transform import Transform, augmented, boxes, draws
from gnnrl.errors import UserError


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def pixels(generator):
    return torch.randint(1, 256, (64, 3, 8, 10), generator=generator, dtype=torch.uint8)


def test_normalised_pixels_have_mean_zero_and_deviation_one(pixels):
    values = pixels.float() / 255
    transform = Transform(
        tuple(values.mean((0, 2, 3)).tolist()), tuple(values.std((0, 2, 3)).tolist())
    )
    result = transform.normalised(pixels)
    torch.testing.assert_close(result.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(result.std((0, 2, 3)), torch.ones(3), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentation_follows_its_generator_only(name, pixels):
    def result(seed: int) -> torch.Tensor:
        return augmented(pixels, AUGMENTATIONS[name], torch.Generator().manual_seed(seed))

    assert result(1).shape == pixels.shape and result(1).dtype == torch.uint8
    assert torch.equal(result(1), result(1))
    assert torch.equal(result(1), result(2)) is (name == "none")


def test_a_crop_is_the_image_shifted_by_at_most_the_padding(pixels, generator):
    height, width = pixels.shape[2:]
    for old, new in zip(pixels, augmented(pixels, AUGMENTATIONS["crop"], generator), strict=True):
        padded = torch.nn.functional.pad(old, (4, 4, 4, 4))
        shifts = [(top, left) for top in range(9) for left in range(9)]
        assert any(
            torch.equal(new, padded[:, top : top + height, left : left + width])
            for top, left in shifts
        )


def test_about_half_of_the_images_are_mirrored(generator):
    pixels = torch.arange(10, dtype=torch.uint8).expand(1000, 1, 10, 10).contiguous()
    plain = augmented(pixels, AUGMENTATIONS["crop_flip"], generator)
    mirrored = (plain[:, 0, 5, 4] > plain[:, 0, 5, 5]).sum()
    assert 430 < mirrored < 570


def test_random_parts_lie_within_the_image(generator):
    top, left, high, wide = boxes(draws(10_000, generator), 48, 64).unbind(1)
    assert (top >= 0).all() and (top + high <= 48 + 1e-4).all()
    assert (left >= 0).all() and (left + wide <= 64 + 1e-4).all()
    share = high * wide / (48 * 64)
    assert share.min() < 0.15 and share.max() > 0.9


def test_one_colour_stays_one_colour_in_random_parts(generator):
    pixels = torch.full((8, 3, 16, 16), 77, dtype=torch.uint8)
    assert torch.equal(augmented(pixels, AUGMENTATIONS["resized_crop_flip"], generator), pixels)


def test_normalisation_is_carried_over_to_grey_and_back():
    colours = Transform((0.2, 0.4, 0.6), (0.1, 0.2, 0.3))
    assert colours.for_channels(1).mean == pytest.approx((0.4,))
    assert Transform((0.3,), (0.4,)).for_channels(3).std == pytest.approx((0.4, 0.4, 0.4))
    with pytest.raises(UserError, match="4"):
        colours.for_channels(4)
    with pytest.raises(UserError, match=r"the network takes 32, the first number of network.input"):
        Transform((0.3,), (0.4,)).for_channels(32)


def test_normalisation_without_spread_is_refused():
    with pytest.raises(UserError, match=r"std \[0.0\]"):
        Transform((0.5,), (0.0,))
