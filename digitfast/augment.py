"""Training images changed a little, anew in every epoch, so that a network sees more than the images there are."""
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
            raise BadSetting(f"augmentation of strength {strength}: above 0 to {STRONGEST} is wanted, such as 1")
        self.strength = strength

    def encodes(self, x: TensorImage):
        images = torch.as_subclass(x, torch.Tensor)
        grid = F.affine_grid(self._matrices(len(images), images.device), list(images.shape), align_corners=False)
        return torch.as_subclass(F.grid_sample(images, grid, padding_mode="zeros", align_corners=False), type(x))

    def _matrices(self, n: int, device: torch.device) -> torch.Tensor:
        "`n` random matrices from pixels to where they are taken from, in units of half a side, `[n, 2, 3]`."
        turn, shear, wide, high, right, down = torch.empty(6, n, device=device).uniform_(-1, 1) * self.strength
        cos, sin, shear = torch.cos(turn * ROTATION), torch.sin(turn * ROTATION), torch.tan(shear * SHEAR)
        wide, high = 1 / (1 + wide * ZOOM), 1 / (1 + high * ZOOM)
        across = torch.stack([cos * wide, (cos * shear - sin) * high, right * 2 * SHIFT], dim=1)
        along = torch.stack([sin * wide, (sin * shear + cos) * high, down * 2 * SHIFT], dim=1)
        return torch.stack([across, along], dim=1)
