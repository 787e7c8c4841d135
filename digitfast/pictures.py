"""Image files, and pictures in any other form, as grey pixels. No need of torch or fastai."""
import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from digitfast.errors import BadImage

#: Formats that are read: those of cameras, scanners and drawing programs. None of them starts another program.
FORMATS = ("BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
MOST_PIXELS = 200_000_000  # of one picture
LONGEST = 2000  # pixels of the longer side of a picture that digits are looked for in


def read_grey(
    fn: str | Path | bytes,  # an image file, or the bytes of one
) -> Image.Image:  # mode "L"
    "A picture as 8 bits of grey, turned as its camera says. Raises: `BadImage`, which names the file."
    with _opened(fn) as image:
        return _grey(image)


def read_picture(
    picture,  # a path, the bytes of an image file, a PIL image, an array or a tensor
) -> tuple[np.ndarray, float]:  # uint8 `[h, w]`, and its pixels to one of the picture
    """A photo, scan or drawing as grey of at most 2,000 pixels a side, turned as its camera says.

    Of an animation it is the first image. What is transparent becomes paper: black behind light ink, white behind dark.
    Raises: `BadImage`, which names the file.
    """
    if isinstance(picture, (str, Path, bytes)):
        with _opened(picture) as image:
            full = max(image.size)
            image.draft("L", (LONGEST * 3 // 4,) * 2)  # a JPEG is decoded at a part of its size at once
            image = _grey(image)
    else:
        image = _grey(picture) if isinstance(picture, Image.Image) else array_image(picture)
        full = max(image.size)
    if max(image.size) > LONGEST:
        image = image.reduce(math.ceil(max(image.size) / LONGEST))
    return np.asarray(image), max(image.size) / full


@contextmanager
def _opened(fn: str | Path | bytes) -> Iterator[Image.Image]:
    "The image in a file or in bytes; whatever goes wrong with it becomes a `BadImage`."
    name = f"{len(fn)} bytes" if isinstance(fn, bytes) else fn
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata; images that are too large are refused below
            with Image.open(io.BytesIO(fn) if isinstance(fn, bytes) else fn, formats=FORMATS) as image:
                if not 0 < image.width * image.height <= MOST_PIXELS:
                    raise BadImage(f"{name} has {image.width} × {image.height} pixels; allowed are up to "
                                   f"{MOST_PIXELS:,} in all")
                yield image
    except BadImage:
        raise
    except Image.DecompressionBombError as e:
        raise BadImage(f"{name} has too many pixels; allowed are up to {MOST_PIXELS:,} in all") from e
    except Exception as e:  # what a decoder meets in damaged bytes can be anything
        known = isinstance(e, OSError) and e.errno is not None and not isinstance(e, UnidentifiedImageError)
        reason = e.strerror if known else "it is no image, or a damaged one"
        if not known and _is_heic(fn):
            reason = "HEIC is not read; save or send it as JPEG"
        raise BadImage(f"{name} cannot be read as a picture: {reason}") from e


def _is_heic(fn: str | Path | bytes) -> bool:
    if isinstance(fn, bytes):
        start = fn[:12]
    else:
        with open(fn, "rb") as file:
            start = file.read(12)
    return start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"mif1", b"msf1")


def _grey(image: Image.Image) -> Image.Image:
    "`image` in mode L, upright, on paper."
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
        return Image.fromarray((np.asarray(image) / 257).clip(0, 255).round().astype(np.uint8))
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image))
        top = max(float(values.max()), 1e-6)
        return Image.fromarray((values.clip(0, top) * (255 / top if top <= 1 or top > 255 else 1)).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("L")
    grey, opaque = (np.asarray(band, np.float32) for band in image.convert("RGBA").convert("LA").split())
    light_ink = (grey * opaque).sum() > 128 * opaque.sum()
    paper = 0 if light_ink and (opaque < 128).any() else 255
    return Image.fromarray((paper + (grey - paper) * opaque / 255).round().astype(np.uint8))


def fit_square(
    image: Image.Image,  # mode "L"
    size: int,  # side of the square, in pixels
) -> Image.Image:
    "`image` brought to `size` × `size` pixels, its proportions kept, with paper at the sides."
    side = (size, size)
    return image if image.size == side else ImageOps.pad(image, side, Image.Resampling.LANCZOS, color=0)


def array_image(
    array,  # `[h, w]`, `[1, h, w]`, `[h, w, 1]` or `[h, w, 3]`; integers are 0..255, floats and booleans 0..1
) -> Image.Image:  # mode "L"
    "An array, or a tensor of torch's, as a picture. Raises: `BadImage`."
    array = np.asarray(array.cpu() if hasattr(array, "cpu") else array)
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
    array = (array * 255).round().astype(np.uint8) if top == 1 else array.astype(np.uint8)
    return Image.fromarray(array).convert("L")
