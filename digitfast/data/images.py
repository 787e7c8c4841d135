"""Pictures in the form that fastai's data blocks take."""
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fastai.vision.core import PILImageBW
from fasttransform import Transform

from digitfast.data.pictures import fit_square, read_grey


@dataclass(slots=True, eq=False, repr=False)
class ImageInMemory:
    "An image with its label that is an item of a fastai dataset without being a file."
    pixels: np.ndarray  # uint8 `[h, w]`
    label: str
    name: str  # such as "training/17"

    def __repr__(self) -> str:  # fastai makes a text of all items
        return self.name


def item_label(
    item: Path | ImageInMemory,  # fastai reads this annotation
) -> str:
    "Return the class of an image: a file's is the name of its folder."
    return item.label if isinstance(item, ImageInMemory) else item.parent.name


def item_name(
    item: Path | ImageInMemory,
    root: Path,  # folder of the digits
) -> str:
    "Return the name of an image: a file's is its path below `root`."
    return item.name if isinstance(item, ImageInMemory) else item.relative_to(root).as_posix()


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
        return cls(read_grey(fn.pixels if isinstance(fn, ImageInMemory) else fn))


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
