"""One picture, in whatever form it comes, as the grey image that the networks are trained on."""
import io
from pathlib import Path

import numpy as np
from fastai.vision.core import PILImageBW
from fasttransform import Transform
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from digitfast.errors import BadImage


class PILDigit(PILImageBW):
    "A grey 8-bit picture of a digit, 0 = paper to 255 = ink (MNIST's convention: light digits on a dark ground)."

    @classmethod
    def create(cls, fn, **kwargs):
        """A `PILDigit` from a path, the bytes of an image file, a PIL image, an array or a tensor.

        Shapes: arrays are `[h, w]`, `[1, h, w]`, `[h, w, 1]` or `[h, w, 3]`.
        Units: integers are 0..255, floats and booleans are 0..1.
        Raises: `BadImage`, which names the file.
        """
        if isinstance(fn, Image.Image):
            return cls(fn.convert("L"))
        if isinstance(fn, (np.ndarray, Tensor)):
            return cls(Image.fromarray(_to_uint8(np.asarray(fn.cpu() if isinstance(fn, Tensor) else fn))).convert("L"))
        return cls(read_grey(fn))


def read_grey(
    fn: str | Path | bytes,  # an image file, or the bytes of one
) -> Image.Image:  # mode "L"
    "A picture as 8 bits of grey. Raises: `BadImage`, which names the file."
    try:
        with Image.open(io.BytesIO(fn) if isinstance(fn, bytes) else fn) as image:
            if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
                return Image.fromarray((np.asarray(image) / 257).clip(0, 255).round().astype(np.uint8))
            return image.convert("L")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
        name = f"{len(fn)} bytes" if isinstance(fn, bytes) else fn
        unknown = isinstance(e, (SyntaxError, ValueError, UnidentifiedImageError))
        reason = "it is no image, or a damaged one" if unknown else e
        raise BadImage(f"{name} cannot be read as a picture: {reason}") from e


def fit_square(
    image: Image.Image,  # mode "L"
    size: int,  # side of the square, in pixels
) -> Image.Image:
    "`image` brought to `size` × `size` pixels, its proportions kept, with paper at the sides."
    side = (size, size)
    return image if image.size == side else ImageOps.pad(image, side, Image.Resampling.LANCZOS, color=0)


def _to_uint8(array: np.ndarray) -> np.ndarray:
    "`array` as uint8 `[h, w]` or `[h, w, 3]`."
    shape = array.shape
    if array.ndim == 3 and 1 in (shape[0], shape[2]):
        array = array[0] if shape[0] == 1 else array[:, :, 0]
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and shape[2] == 3)):
        raise BadImage(f"an array of shape {list(shape)} is no picture; "
                       "allowed are [h, w], [1, h, w], [h, w, 1] and [h, w, 3]")
    top = 1 if array.dtype.kind in "fb" else 255
    if not (array.dtype.kind in "fbiu" and array.min() >= 0 and array.max() <= top):  # a NaN compares false
        raise BadImage(f"an array of {array.dtype} is no picture, or out of range; "
                       "allowed are integers in 0..255 and floats in 0..1")
    return (array * 255).round().astype(np.uint8) if top == 1 else array.astype(np.uint8)


class FitSize(Transform):
    "`fit_square` as a transform of fastai's."

    def __init__(
        self,
        size: int,  # side of the square, in pixels
    ):
        super().__init__()
        self.size = size

    def encodes(self, img: PILDigit):
        return PILDigit(fit_square(img, self.size))
