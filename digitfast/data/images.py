"""Pictures in the form that fastai's data blocks take."""
import numpy as np
from fastai.vision.core import PILImageBW
from fasttransform import Transform
from torch import Tensor

from digitfast.data.pictures import array_image, fit_square, read_grey


class PILDigit(PILImageBW):
    "A grey 8-bit picture of a digit, 0 = paper to 255 = ink: light digits on black, as in MNIST."

    @classmethod
    def create(cls, fn, **kwargs):
        """Return a picture in any form as a `PILDigit`.

        It is a path, the bytes of an image file, an open file, a PIL image, an array or a tensor.
        An opened PIL image gives the same as its file.
        Shapes: arrays are `[h, w]`, or `[c, h, w]` or `[h, w, c]` with 1, 3 (RGB) or 4 (RGBA)
        channels.
        Units: integers are 0..255, floats and booleans are 0..1.
        Raises: `BadImage`, which names the file.
        """
        if isinstance(fn, (np.ndarray, Tensor)):
            return cls(array_image(fn))
        return cls(read_grey(fn))


class FitSize(Transform):
    "Bring a picture to a square size: `fit_square` as a fastai transform."

    def __init__(
        self,
        size: int,  # side of the square, in pixels
    ):
        super().__init__()
        self.size = size

    def encodes(self, img: PILDigit):
        return PILDigit(fit_square(img, self.size))
