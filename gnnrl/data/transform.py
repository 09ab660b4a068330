"""What happens to pixels before a network sees them: augmentation and normalisation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gnnrl.data.augmentations import UNCHANGED, Augmentation
from gnnrl.data.targets import IGNORED
from gnnrl.errors import UserError

# B: images of a batch   C: channels   H, W: height, width


@dataclass(frozen=True)
class Transform:
    """mean, std: one number per channel, of pixels in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation = UNCHANGED

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise UserError(
                "normalisation needs one mean and one std above zero per channel, got "
                f"mean {list(self.mean)} and std {list(self.std)}"
            )

    def for_channels(self, channels: int) -> Transform:
        """Return the same for images that become grey, or grey ones that become colour."""
        if len(self.mean) == channels:
            return self
        if channels != 1 and (len(self.mean), channels) != (1, 3):
            raise UserError(
                f"mean and std are of {len(self.mean)} channels, the network takes {channels}, the "
                "first number of network.input_shape [channels, height, width]: correct it, or "
                "give one mean and one std for each channel"
            )
        mean, std = (sum(v) / len(v) for v in (self.mean, self.std))
        return Transform((mean,) * channels, (std,) * channels, self.augmentation)

    def augmentation_if(self, wanted: bool) -> Augmentation:
        """Return the augmentation, or one that changes nothing."""
        return self.augmentation if wanted else UNCHANGED

    def normalised(self, pixels: Tensor) -> Tensor:
        """uint8 [B, C, H, W] -> float32 of mean about 0 and standard deviation about 1."""
        mean, std = (
            torch.tensor(values, device=pixels.device).view(1, -1, 1, 1) * 255
            for values in (self.mean, self.std)
        )
        return (pixels.float() - mean) / std


def augmented(pixels: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
    """Return uint8 [B, C, H, W], each image changed by its own draw."""
    if how.resized:
        pixels = _resized(pixels, draws(len(pixels), generator))
    if how.padding:
        pixels = _cropped(pixels, how.padding, generator)
    if how.flip:
        flipped = torch.rand(len(pixels), generator=generator) < 0.5
        mask = flipped.to(pixels.device).view(-1, 1, 1, 1)
        pixels = torch.where(mask, pixels.flip(-1), pixels)
    return pixels


def augmented_with_masks(
    pixels: Tensor, masks: Tensor, how: Augmentation, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return uint8 [B, C, H, W] and masks uint8 [B, H, W], moved together by the same draws.

    What comes in from outside the image is of no class.
    """
    # as one more channel; padding with 0 then reads as IGNORED
    both = augmented(torch.cat([pixels, (IGNORED - masks)[:, None]], 1), how, generator)
    return both[:, :-1], IGNORED - both[:, -1]


def _cropped(pixels: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    count, channels, height, width = pixels.shape
    shifts = torch.randint(2 * padding + 1, (2, count, 1), generator=generator)
    rows = (shifts[0] + torch.arange(height)).to(pixels.device)  # [B, H]
    columns = (shifts[1] + torch.arange(width)).to(pixels.device)  # [B, W]
    image = torch.arange(count, device=pixels.device).view(-1, 1, 1, 1)
    channel = torch.arange(channels, device=pixels.device).view(1, -1, 1, 1)
    padded = F.pad(pixels, (padding,) * 4)
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def draws(count: int, generator: torch.Generator) -> Tensor:
    """Return [count, 4] numbers in [0, 1): area, aspect ratio, top and left of a random part."""
    return torch.rand(count, 4, generator=generator)


def boxes(drawn: Tensor, height: int, width: int) -> Tensor:
    """Return [count, 4]: top, left, height and width, in pixels, of the parts drawn.

    Area 8 to 100 % of the image, aspect ratio 3:4 to 4:3, both as far as the image reaches.
    """
    area = (0.08 + 0.92 * drawn[:, 0]) * height * width
    ratio = (4 / 3) ** (2 * drawn[:, 1] - 1)
    high = (area / ratio).sqrt().clamp(1, height)
    wide = (area * ratio).sqrt().clamp(1, width)
    return torch.stack([drawn[:, 2] * (height - high), drawn[:, 3] * (width - wide), high, wide], 1)


def _resized(pixels: Tensor, drawn: Tensor) -> Tensor:
    height, width = pixels.shape[-2:]
    top, left, high, wide = boxes(drawn, height, width).to(pixels.device).unbind(1)
    zero = torch.zeros_like(top)
    across = torch.stack([wide / width, zero, (2 * left + wide) / width - 1], dim=1)
    down = torch.stack([zero, high / height, (2 * top + high) / height - 1], dim=1)
    grid = F.affine_grid(
        torch.stack([across, down], dim=1), list(pixels.shape), align_corners=False
    )
    parts = F.grid_sample(pixels.float(), grid, padding_mode="border", align_corners=False)
    return parts.round().to(torch.uint8)
