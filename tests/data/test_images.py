from __future__ import annotations

import pytest
import torch

from gnnrl.data.augmentations import AUGMENTATIONS
from gnnrl.data.images import Images, batch_count, chosen_indices
from gnnrl.data.transform import Transform


@pytest.fixture
def images():
    pixels = torch.arange(17, dtype=torch.uint8).view(17, 1, 1, 1).expand(17, 1, 4, 4).contiguous()
    transform = Transform((0.0,), (1 / 255,), AUGMENTATIONS["crop"])  # a pixel stays its number
    return Images(pixels, torch.arange(17), transform)


def test_without_a_generator_batches_come_in_order(images):
    batches = list(images.batches(8))
    assert [len(labels) for _, labels in batches] == [8, 8, 1]
    assert torch.cat([labels for _, labels in batches]).tolist() == list(range(17))
    assert torch.cat([x[:, 0, 0, 0] for x, _ in batches]).tolist() == list(range(17))


def test_with_a_generator_every_image_comes_once_and_never_alone(images):
    batches = list(images.batches(8, generator=torch.Generator().manual_seed(0)))
    assert [len(labels) for _, labels in batches] == [8, 9]
    served = torch.cat([labels for _, labels in batches]).tolist()
    assert sorted(served) == list(range(17)) != served
    for x, labels in batches:
        assert torch.equal(x[:, 0, 0, 0].round().long(), labels)


def test_only_asked_for_images_are_changed(images):
    generator = torch.Generator().manual_seed(0)
    plain = torch.cat([x for x, _ in images.batches(8, generator=generator)])
    changed = torch.cat([x for x, _ in images.batches(8, generator=generator, augment=True)])
    assert len(plain.unique()) == 17
    assert (changed == 0).sum() > (plain == 0).sum()  # black came in from the sides


def test_taken_images_keep_their_labels(images):
    few = images.take(torch.tensor([5, 3]))
    assert few.labels.tolist() == [5, 3] and few.pixels[:, 0, 0, 0].tolist() == [5, 3]
    assert few.input_shape == (1, 4, 4)


def test_the_fingerprint_is_of_the_content(images):
    everything = torch.arange(17)
    assert images.fingerprint() == images.take(everything).fingerprint()
    assert images.fingerprint() != images.take(everything.flip(0)).fingerprint()


@pytest.mark.parametrize("count", range(1, 20))
def test_batches_are_counted_as_they_are_served(count):
    served = chosen_indices(count, 6, torch.Generator().manual_seed(0))
    assert len(served) == batch_count(count, 6)
