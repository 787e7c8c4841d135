"""Random changes to training images, different in every epoch."""
import math

import torch
import torch.nn.functional as F
from fastai.vision.core import TensorImage
from fasttransform import Transform

from digitfast.errors import BadSetting


class RandomAffine(Transform):
    """Turn, shear, zoom and shift each image of a training batch at random; never mirror it.

    At `strength` 1 an image is turned by up to 20°, sheared by up to 15°, made up to 15 % larger or
    smaller and shifted by up to 10 % of its side; each amount is drawn uniformly between its
    limits. Pixels that come from outside the image are 0.

    Shapes: `[batch, channels, height, width]` floats, on any device; validation images pass
    unchanged.
    Raises: `BadSetting` for a strength outside its range.
    """

    order = 30  # after images have become floats
    split_idx = 0  # only in training

    def __init__(
        self,
        strength: float = 1.0,  # factor of all four limits, above 0 and at most 3
    ):
        super().__init__()
        max_strength = 3.0  # beyond it little is left of a digit
        if not 0 < strength <= max_strength:
            raise BadSetting("the strength of augmentation must be above 0 and at most "
                             f"{max_strength}, such as 1, not {strength}")
        self.strength = strength

    def encodes(self, x: TensorImage):
        images = torch.as_subclass(x, torch.Tensor)
        matrices = self._matrices(len(images), images.device)
        grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
        moved = F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
        return torch.as_subclass(moved, type(x))

    def _matrices(
        self,
        n: int,
        device: torch.device,
        max_turn: float = math.radians(20),  # to either side
        max_shear: float = math.radians(15),  # to either side
        max_zoom: float = 0.15,  # part of the size, larger or smaller, in each direction alone
        max_shift: float = 0.1,  # part of the side, to either side, in each direction alone
    ) -> torch.Tensor:
        "Return `n` random affine matrices from target to source, in halves of a side, `[n, 2, 3]`."
        amounts = torch.empty(6, n, device=device).uniform_(-1, 1) * self.strength
        turn = amounts[0] * max_turn
        shear = amounts[1] * max_shear
        zoom = 1 + amounts[2:4] * max_zoom
        shift = amounts[4:] * (2 * max_shift)
        across = torch.stack([torch.cos(turn), torch.sin(turn)])  # where the axes of an image point
        along = torch.stack([-across[1], across[0]]) + across * torch.tan(shear)
        return torch.stack([across / zoom[0], along / zoom[1], shift], dim=2).transpose(0, 1)


class RandomPen(Transform):
    """Change some images of a training batch as pens, paper, cameras and scanners do.

    Each change is made to a random part of the images: wider or narrower strokes, a coarser
    resolution, a bent shape, a gap or a trace of a ruled line, specks.

    Shapes: `[batch, channels, height, width]` floats in 0..1 (1 = ink), on any device; validation
    images pass unchanged.
    Raises: `BadSetting` for a part outside its range.
    """

    order = 31  # after `RandomAffine`
    split_idx = 0  # only in training

    def __init__(
        self,
        part: float = 0.3,  # part of the images that gets each change, above 0 and at most 1
    ):
        super().__init__()
        if not 0 < part <= 1:
            raise BadSetting("pen must be above 0 and at most 1 (part of the images), such as 0.3, "
                             f"not {part}")
        self.part = part

    def encodes(self, x: TensorImage):
        images = torch.as_subclass(x, torch.Tensor).clone()
        for change in (_bend, _widen, _narrow, _coarsen, _cross_out, _underline, _speckle):
            chosen = torch.rand(len(images), device=images.device).lt(self.part).nonzero()[:, 0]
            if len(chosen):
                images[chosen] = change(images[chosen])
        return torch.as_subclass(images, type(x))


def _each(images: torch.Tensor) -> torch.Tensor:
    "Return a random number in 0..1 for each image, `[n, 1, 1, 1]`."
    return torch.rand(len(images), 1, 1, 1, device=images.device)


def _bend(
    images: torch.Tensor,
    deviation: float = 0.06,  # standard deviation of the shifts of 5 × 5 points, in half sides
) -> torch.Tensor:
    "Bend each image by smooth random shifts, 4 % of the side on average (an elastic distortion)."
    n, _, h, w = images.shape
    identity = torch.eye(2, 3, device=images.device).expand(n, 2, 3)
    straight = F.affine_grid(identity, list(images.shape), align_corners=False)
    points = torch.randn(n, 2, 5, 5, device=images.device) * deviation
    shifts = F.interpolate(points, (h, w), mode="bicubic")
    return F.grid_sample(images, straight + shifts.permute(0, 2, 3, 1), align_corners=False)


def _widen(images: torch.Tensor) -> torch.Tensor:
    "Widen strokes by up to a pixel on each side (a dilation)."
    return torch.lerp(images, F.max_pool2d(images, 3, stride=1, padding=1), _each(images))


def _narrow(images: torch.Tensor) -> torch.Tensor:
    "Narrow strokes by up to half a pixel on each side (an erosion), which keeps thin ones."
    return torch.lerp(images, -F.max_pool2d(-images, 3, stride=1, padding=1), _each(images) / 2)


def _coarsen(images: torch.Tensor) -> torch.Tensor:
    "Lower the resolution to 1/3 to 5/6, the same for all images and more often low than high."
    h, w = images.shape[-2:]
    scale = 1 / 3 + torch.rand(1).item()**2 / 2
    down, across = (_averages(n, max(1, round(n * scale)), images) for n in (h, w))
    coarse = down @ images @ across.T
    fine = F.interpolate(coarse, (h, w), mode="bicubic").clamp_(0, 1)
    return (fine / fine.amax((1, 2, 3), keepdim=True).clamp_min_(0.1)).clamp_(0, 1)


def _averages(n: int, fewer: int, like: torch.Tensor) -> torch.Tensor:
    "Return the matrix that averages `n` pixels to `fewer`, as `adaptive_avg_pool2d` does."
    # `adaptive_avg_pool2d` is not used because Apple's GPUs cannot run it
    edges = torch.arange(fewer + 1, device=like.device) * n
    first = edges[:-1] // fewer
    after = -(-edges[1:] // fewer)
    pixels = torch.arange(n, device=like.device)
    inside = ((pixels >= first[:, None]) & (pixels < after[:, None])).to(like.dtype)
    return inside / inside.sum(1, keepdim=True)


def _bars(images: torch.Tensor) -> torch.Tensor:
    "Return a bar of 1 to 2 pixels per image, 1 in it and 0 elsewhere; every other one is upright."
    n, _, h, w = images.shape
    rows = torch.arange(h, device=images.device).view(1, 1, h, 1)
    bar = (1.25 - (rows - _each(images) * h).abs()).clamp(0, 1).expand(n, 1, h, w)
    ends = torch.arange(w, device=images.device).view(1, 1, 1, w) / w
    bar = bar * (ends > _each(images) - 0.3) * (ends < _each(images) + 0.3)
    level = torch.arange(n, device=images.device).view(n, 1, 1, 1) % 2 == 0
    return torch.where(level, bar, bar.transpose(2, 3))


def _cross_out(images: torch.Tensor) -> torch.Tensor:
    "Fade or remove the ink in a bar, as the removal of a ruled line may."
    return images * (1 - _bars(images) * _each(images))


def _underline(images: torch.Tensor) -> torch.Tensor:
    "Add a faint bar: what is left of a ruled line."
    return torch.maximum(images, _bars(images) * _each(images) * 0.6)


def _speckle(images: torch.Tensor) -> torch.Tensor:
    "Add a few specks of ink, and a few of paper."
    noise = torch.rand_like(images)
    return torch.where(noise < 0.005, noise * 200, torch.where(noise > 0.99, images * 0.5, images))
