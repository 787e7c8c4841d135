"""Training images changed a little, differently in every epoch."""
import math

import torch
import torch.nn.functional as F
from fastai.vision.core import TensorImage
from fasttransform import Transform

from digitfast.errors import BadSetting

ROTATION = math.radians(20)  # to either side
SHEAR = math.radians(15)  # to either side
ZOOM = 0.15  # part of the size, to more or less, in each direction by itself
SHIFT = 0.1  # part of the side, to either side, in each direction by itself
BEND = 0.06  # deviation of the shifts of a bent image's corners, in halves of the side
STRONGEST = 3.0  # factor beyond which little is left of a digit


class RandomAffine(Transform):
    """Turns, shears, zooms and shifts each image of a training batch by amounts of its own; never mirrors it.

    At `strength` 1 an image is turned by up to 20°, sheared by up to 15°, made up to 15 % larger or smaller and
    shifted by up to 10 % of its side; each amount is uniform between the limits. What comes in from outside is 0.

    Shapes: `[batch, channels, height, width]` floats, on any device; validation images pass unchanged.
    Raises: `BadSetting` for another strength.
    """

    order, split_idx = 30, 0  # after the image has become floats; only in training

    def __init__(
        self,
        strength: float = 1.0,  # factor of all four limits, above 0, 3 at most
    ):
        super().__init__()
        if not 0 < strength <= STRONGEST:
            raise BadSetting("the strength of augmentation must be above 0 and at most "
                             f"{STRONGEST}, such as 1, not {strength}")
        self.strength = strength

    def encodes(self, x: TensorImage):
        images = torch.as_subclass(x, torch.Tensor)
        grid = F.affine_grid(self._matrices(len(images), images.device), list(images.shape), align_corners=False)
        return torch.as_subclass(F.grid_sample(images, grid, padding_mode="zeros", align_corners=False), type(x))

    def _matrices(self, n: int, device: torch.device) -> torch.Tensor:
        "`n` random matrices from pixels to where they are taken from, in units of half a side, `[n, 2, 3]`."
        amounts = torch.empty(6, n, device=device).uniform_(-1, 1) * self.strength
        turn, shear, zoom, shift = amounts[0] * ROTATION, amounts[1] * SHEAR, 1 + amounts[2:4] * ZOOM, amounts[4:]
        across = torch.stack([torch.cos(turn), torch.sin(turn)])  # where the axes of an image point
        along = torch.stack([-across[1], across[0]]) + across * torch.tan(shear)
        return torch.stack([across / zoom[0], along / zoom[1], shift * (2 * SHIFT)], dim=2).transpose(0, 1)


class RandomPen(Transform):
    """Gives the images of a training batch what pens, paper, cameras and scanners add: some of them get wider or
    narrower strokes, a coarser resolution, a bent shape, a gap or a trace of a ruled line, specks.

    Shapes: `[batch, channels, height, width]` floats in 0..1 (1 = ink), on any device; validation images pass
    unchanged. Raises: `BadSetting` for another part.
    """

    order, split_idx = 31, 0  # after `RandomAffine`; only in training

    def __init__(
        self,
        part: float = 0.3,  # of the images that each of the changes comes to, above 0 to 1
    ):
        super().__init__()
        if not 0 < part <= 1:
            raise BadSetting(f"pen must be above 0 and at most 1 (part of the images), such as 0.3, not {part}")
        self.part = part

    def encodes(self, x: TensorImage):
        images = torch.as_subclass(x, torch.Tensor).clone()
        for change in (_bend, _widen, _narrow, _coarsen, _cross_out, _underline, _speckle):
            chosen = torch.rand(len(images), device=images.device).lt(self.part).nonzero()[:, 0]
            if len(chosen):
                images[chosen] = change(images[chosen])
        return torch.as_subclass(images, type(x))


def _each(images: torch.Tensor) -> torch.Tensor:
    "A random number in 0..1 for each image, `[n, 1, 1, 1]`."
    return torch.rand(len(images), 1, 1, 1, device=images.device)


def _bend(images: torch.Tensor) -> torch.Tensor:
    "Each image pulled about by smooth random shifts, 4 % of the side in the mean (an elastic distortion)."
    n, _, h, w = images.shape
    straight = F.affine_grid(torch.eye(2, 3, device=images.device).expand(n, 2, 3), list(images.shape),
                             align_corners=False)
    shifts = F.interpolate(torch.randn(n, 2, 5, 5, device=images.device) * BEND, (h, w), mode="bicubic")
    return F.grid_sample(images, straight + shifts.permute(0, 2, 3, 1), align_corners=False)


def _widen(images: torch.Tensor) -> torch.Tensor:
    "Strokes wider by up to a pixel on each side."
    return torch.lerp(images, F.max_pool2d(images, 3, stride=1, padding=1), _each(images))


def _narrow(images: torch.Tensor) -> torch.Tensor:
    "Strokes narrower by up to half a pixel on each side, so that thin ones stay."
    return torch.lerp(images, -F.max_pool2d(-images, 3, stride=1, padding=1), _each(images) / 2)


def _coarsen(images: torch.Tensor) -> torch.Tensor:
    "A resolution of a third to five sixths, the same for all and more often a low one, enlarged again."
    h, w = images.shape[-2:]
    scale = 1 / 3 + torch.rand(1).item()**2 / 2
    down, across = (_averages(n, max(1, round(n * scale)), images) for n in (h, w))
    coarse = down @ images @ across.T
    fine = F.interpolate(coarse, (h, w), mode="bicubic").clamp_(0, 1)
    return (fine / fine.amax((1, 2, 3), keepdim=True).clamp_min_(0.1)).clamp_(0, 1)


def _averages(n: int, fewer: int, like: torch.Tensor) -> torch.Tensor:
    "The matrix that makes `fewer` means out of `n` pixels, as `adaptive_avg_pool2d` does, which Apple's GPUs cannot."
    edges = torch.arange(fewer + 1, device=like.device) * n
    first, after = edges[:-1] // fewer, -(-edges[1:] // fewer)
    pixels = torch.arange(n, device=like.device)
    seen = ((pixels >= first[:, None]) & (pixels < after[:, None])).to(like.dtype)
    return seen / seen.sum(1, keepdim=True)


def _bars(images: torch.Tensor) -> torch.Tensor:
    "For each image a bar across it, one to two pixels wide: 1 in the bar to 0 beside it, upright for every other."
    n, _, h, w = images.shape
    rows = torch.arange(h, device=images.device).view(1, 1, h, 1)
    bar = (1.25 - (rows - _each(images) * h).abs()).clamp(0, 1).expand(n, 1, h, w)
    ends = torch.arange(w, device=images.device).view(1, 1, 1, w) / w
    bar = bar * (ends > _each(images) - 0.3) * (ends < _each(images) + 0.3)
    return torch.where(torch.arange(n, device=images.device).view(n, 1, 1, 1) % 2 == 0, bar, bar.transpose(2, 3))


def _cross_out(images: torch.Tensor) -> torch.Tensor:
    "Ink that has faded, or gone, in a bar: what taking away a ruled line may leave."
    return images * (1 - _bars(images) * _each(images))


def _underline(images: torch.Tensor) -> torch.Tensor:
    "A faint bar: what is left of a ruled line."
    return torch.maximum(images, _bars(images) * _each(images) * 0.6)


def _speckle(images: torch.Tensor) -> torch.Tensor:
    "A few specks of ink, and a few of paper."
    noise = torch.rand_like(images)
    return torch.where(noise < 0.005, noise * 200, torch.where(noise > 0.99, images * 0.5, images))
