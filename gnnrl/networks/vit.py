"""Small vision transformers for small images (Dosovitskiy et al. 2021), by torchvision's class."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from gnnrl.errors import UserError
from gnnrl.networks.shape import Builder, replace_first_conv
from gnnrl.shapes import Shape

PATCH = 4
LAYERS, HEADS, WIDTH, HIDDEN = 6, 4, 128, 512
SWIN_PATCH, SWIN_WIDTH, WINDOW = 2, 48, 4


def vit_patch4(num_classes: int, input_shape: Shape) -> nn.Module:
    """Return a transformer of 6 blocks, 4 heads and width 128 over patches of 4x4 pixels.

    About 1.2 million parameters; square images whose side is a multiple of 4.
    """
    from torchvision.models import VisionTransformer

    channels, height, width = input_shape
    if height != width or height % PATCH:
        raise UserError(
            f"vit_patch4 takes square images with a side that is a multiple of {PATCH}, got "
            f"{height}x{width}: set network.input_shape so"
        )
    network = VisionTransformer(
        image_size=height,
        patch_size=PATCH,
        num_layers=LAYERS,
        num_heads=HEADS,
        hidden_dim=WIDTH,
        mlp_dim=HIDDEN,
        num_classes=num_classes,
    )
    if channels != 3:
        replace_first_conv(network, in_channels=channels)
    return network


def swin_patch2(num_classes: int, input_shape: Shape) -> nn.Module:
    """Return a shifted-window transformer (Liu et al. 2021): patches of 2x2 pixels, two stages of
    two blocks, width 48 and 96.

    Windows are 4x4 patches, 2x2 for images below 16 pixels; square images whose side is a multiple
    of 4, from 16 pixels on of 16.
    """
    from torchvision.models import SwinTransformer

    channels, height, width = input_shape
    window = 2 if height < 2 * WINDOW * SWIN_PATCH else WINDOW
    side = window * SWIN_PATCH * (2 if window == WINDOW else 1)
    if height != width or height % side:
        raise UserError(
            f"swin_patch2 takes square images with a side that is a multiple of {side}, got "
            f"{height}x{width}: set network.input_shape so"
        )
    network = SwinTransformer(
        patch_size=[SWIN_PATCH, SWIN_PATCH],
        embed_dim=SWIN_WIDTH,
        depths=[2, 2],
        num_heads=[3, 6],
        window_size=[window, window],
        stochastic_depth_prob=0.0,
        num_classes=num_classes,
    )
    if channels != 3:
        replace_first_conv(network, in_channels=channels)
    return network


NETWORKS: Mapping[str, Builder] = {"vit_patch4": vit_patch4, "swin_patch2": swin_patch2}
