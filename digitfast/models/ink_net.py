"""The network that tells ink from paper, lines, shadows and desks, pixel by pixel."""
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from digitfast.files import PACKED

WIDTHS = (16, 24, 32, 48, 64)  # channels per level, each at half the resolution of the previous
COARSEST = 2**len(WIDTHS)  # side, in pixels of the picture, of one pixel of the last level


class InkNet(nn.Module):
    """A small U-Net, whose first level has half the picture's resolution.

    Shapes: `[n, 1, h, w]` floats from `as_input`, sides multiples of 32, to logits `[n, 1, h, w]`.
    Source: Ronneberger, Fischer and Brox, "U-Net" (2015).
    """

    def __init__(self):
        super().__init__()
        inputs = (1, *WIDTHS)
        self.down = nn.ModuleList(
            nn.Sequential(*_block(a, b, 5 if a == 1 else 3, stride=2), *_block(b, b, 3))
            for a, b in zip(inputs, WIDTHS, strict=False))
        self.narrow = nn.ModuleList(
            nn.Conv2d(b, a, 1) for a, b in zip(WIDTHS, WIDTHS[1:], strict=False))
        self.up = nn.ModuleList(nn.Sequential(*_block(a, a, 3)) for a in WIDTHS[:-1])
        self.head = nn.Sequential(nn.Conv2d(WIDTHS[0], 4, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        levels = []
        for down in self.down:
            x = down(x)
            levels.append(x)
        skips = reversed(levels[:-1])
        for narrow, up, skip in zip(reversed(self.narrow), reversed(self.up), skips, strict=True):
            x = up(F.interpolate(narrow(x), scale_factor=2.0) + skip)
        return self.head(x)


def _block(channels_in: int, channels: int, kernel_size: int, stride: int = 1) -> list[nn.Module]:
    "Return a convolution with batch norm and ReLU that keeps the size, except for its stride."
    return [nn.Conv2d(channels_in, channels, kernel_size, stride, kernel_size // 2, bias=False),
            nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]


def _fuse_batch_norm(layers: nn.Sequential) -> nn.Sequential:
    "Return `layers` with each batch norm fused into the convolution before it, which is faster."
    merged: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d):
            merged[-1] = fuse_conv_bn_eval(merged[-1], layer)
        else:
            merged.append(layer)
    return nn.Sequential(*merged)


def as_input(
    grey: torch.Tensor,  # uint8 `[n, h, w]`, ink darker than paper
) -> torch.Tensor:  # float32 `[n, 1, h, w]`
    """Return the logarithm of the brightness, less the picture's mean.

    Uneven light then adds instead of multiplying.
    """
    levels = torch.log(grey.float().unsqueeze(1) + 10)
    return levels - levels.mean((2, 3), keepdim=True)


class InkChances(nn.Module):
    """An `InkNet` with its preprocessing and its sigmoid.

    Shapes: uint8 `[n, h, w]`, ink darker than paper, sides multiples of 32, to floats `[n, h, w]`:
    the part of each pixel that is ink, 0..1.
    """

    def __init__(self, net: InkNet):
        super().__init__()
        self.net = net.eval()

    def forward(self, grey: torch.Tensor) -> torch.Tensor:
        x = as_input(grey).contiguous(memory_format=torch.channels_last)
        return self.net(x).sigmoid()[:, 0]


@cache
def open_ink_net(
    path: Path = PACKED / "ink.safetensors",  # from tools/ink/train.py; the default is bundled
) -> InkChances:
    "Return the network with these weights."
    net = InkNet()
    weights = {name: weight.float() for name, weight in load_file(path).items()}
    net.load_state_dict(weights, strict=False)
    net.eval()
    net.down = nn.ModuleList(map(_fuse_batch_norm, net.down))
    net.up = nn.ModuleList(map(_fuse_batch_norm, net.up))
    return InkChances(net.to(memory_format=torch.channels_last))
