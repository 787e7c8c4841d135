"""The network that tells ink from paper, lines, shadows and desks: for each pixel how much of it is ink."""
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from digitfast.files import PACKED

INK_NET = PACKED / "ink.safetensors"
WIDTHS = (16, 24, 32, 48, 64)  # channels of each level; each has half the resolution of the one before
COARSEST = 2**len(WIDTHS)  # pixels of the picture to one of the last level


class InkNet(nn.Module):
    """A small U-Net (Ronneberger, Fischer and Brox, 2015) whose first level has half the picture's resolution.

    Shapes: `[n, 1, h, w]` floats from `as_input`, sides multiples of 32, to logits `[n, 1, h, w]`.
    """

    def __init__(self):
        super().__init__()
        before = (1, *WIDTHS)
        self.down = nn.ModuleList(
            nn.Sequential(*_block(a, b, 5 if a == 1 else 3, stride=2), *_block(b, b, 3))
            for a, b in zip(before, WIDTHS, strict=False))
        self.narrow = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in zip(WIDTHS, WIDTHS[1:], strict=False))
        self.up = nn.ModuleList(nn.Sequential(*_block(a, a, 3)) for a in WIDTHS[:-1])
        self.head = nn.Sequential(nn.Conv2d(WIDTHS[0], 4, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        levels = []
        for down in self.down:
            x = down(x)
            levels.append(x)
        for narrow, up, beside in zip(reversed(self.narrow), reversed(self.up), reversed(levels[:-1]), strict=True):
            x = up(F.interpolate(narrow(x), scale_factor=2.0) + beside)
        return self.head(x)


def _block(channels_in: int, channels: int, kernel_size: int, stride: int = 1) -> list[nn.Module]:
    "A convolution with batch norm and ReLU that keeps the size, but for its stride."
    return [nn.Conv2d(channels_in, channels, kernel_size, stride, kernel_size // 2, bias=False),
            nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]


def _without_batch_norm(layers: nn.Sequential) -> nn.Sequential:
    "`layers` with each batch norm taken into the convolution before it: the same answers from fewer passes."
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
    "Logarithms of the brightness, against the picture's mean: light that falls off then adds instead of multiplying."
    levels = torch.log(grey.float().unsqueeze(1) + 10)
    return levels - levels.mean((2, 3), keepdim=True)


class InkChances(nn.Module):
    """An `InkNet` with what comes before and after it.

    Shapes: uint8 `[n, h, w]`, ink darker than paper, sides multiples of 32, to floats `[n, h, w]`: the part of each
    pixel that is ink, 0..1.
    """

    def __init__(
        self,
        net: InkNet,
    ):
        super().__init__()
        self.net = net.eval()

    def forward(self, grey: torch.Tensor) -> torch.Tensor:
        x = as_input(grey).contiguous(memory_format=torch.channels_last)
        return self.net(x).sigmoid()[:, 0]


@cache
def open_ink_net(
    path: Path = INK_NET,  # of a .safetensors from tools/ink/train.py
) -> InkChances:
    "The network with those weights; as a rule the one that comes with digitfast."
    net = InkNet()
    net.load_state_dict({name: weight.float() for name, weight in load_file(path).items()}, strict=False)
    net.eval()
    net.down, net.up = (nn.ModuleList(map(_without_batch_norm, level)) for level in (net.down, net.up))
    return InkChances(net.to(memory_format=torch.channels_last))
