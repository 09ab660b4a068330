from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gnnrl.data.load import DataRecipe, load_data
from gnnrl.data.splits import carve
from gnnrl.errors import UserError

SPLITS = "train", "reward", "test"


@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    share=st.floats(0, 1),
    seed=st.integers(0, 5),
)
def test_carving_is_exact_disjoint_complete_and_in_proportion(counts, share, seed):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    wanted = round(share * len(labels))
    chosen, others = carve(labels, wanted, torch.Generator().manual_seed(seed))
    assert len(chosen) == wanted
    assert torch.equal(torch.cat([chosen, others]).sort().values, torch.arange(len(labels)))
    for label, count in enumerate(counts):
        exact = wanted * count / len(labels)
        assert abs((labels[chosen] == label).sum() - exact) < 1


def rows(images) -> list[bytes]:
    return [image.numpy().tobytes() for image in images.pixels]


@pytest.mark.parametrize("origin", ["train", "test"])
def test_splits_are_disjoint_and_complete(origin):
    splits = load_data(DataRecipe("digits", reward_images=200, reward_from=origin), (1, 8, 8))
    parts = {name: rows(getattr(splits, name)) for name in SPLITS}
    assert {name: len(part) for name, part in parts.items()} == splits.sizes()
    assert sum(map(len, parts.values())) == 1797
    assert len(parts["reward"]) == 200
    everything = [row for part in parts.values() for row in part]
    assert len(set(everything)) == 1797  # no two digits are alike, so none is in two splits


def test_the_seed_moves_the_reward_images_and_not_the_test_images():
    first, same, other = (
        load_data(DataRecipe("digits", reward_images=200, seed=seed), (1, 8, 8))
        for seed in (0, 0, 1)
    )
    assert first.reward.fingerprint() == same.reward.fingerprint() != other.reward.fingerprint()
    assert first.test.fingerprint() == other.test.fingerprint()


def test_every_split_has_every_class():
    splits = load_data(DataRecipe("digits", reward_images=100), (1, 8, 8))
    assert all(len(getattr(splits, name).labels.unique()) == 10 for name in SPLITS)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"reward_images": 0}, "'reward_images' must be at least 1, got 0"),
        ({"reward_images": 5000}, "only 1438 train images"),
        ({"reward_from": "val"}, "must be one of 'train' or 'test', got 'val'"),
        ({"name": "digit"}, "did you mean digits"),
        ({"name": "pictures"}, "'name' must be one of digits, digit_canvas, image_folder"),
        ({"name": "cifar10"}, "needs a root"),
        ({"augmentation": "flip"}, "'augmentation' must be one of none, crop"),
        ({"mean": (0.1, 0.2)}, "one mean and one std"),
    ],
)
def test_wrong_wishes_are_refused(changed, said):
    with pytest.raises(UserError, match=said):
        _ = load_data(DataRecipe(**{"name": "digits", **changed})).train
