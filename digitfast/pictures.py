"""Image files, and pictures in any other form, as grey pixels. No need of torch or fastai."""
import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from digitfast.errors import BadImage

#: Formats that are read: those of cameras, scanners and drawing programs. None of them starts another program.
FORMATS = ("BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
MOST_PIXELS = 178_000_000  # of one picture; a little more and Pillow refuses it as a bomb
MOST_SEEN = 3_000_000  # pixels of a picture that digits are looked for in: 2000 × 1500 of a photo, say
_TURN = Image.Transpose
#: What brings a picture of that EXIF orientation upright.
UPRIGHT = {2: _TURN.FLIP_LEFT_RIGHT, 3: _TURN.ROTATE_180, 4: _TURN.FLIP_TOP_BOTTOM, 5: _TURN.TRANSPOSE,
           6: _TURN.ROTATE_270, 7: _TURN.TRANSVERSE, 8: _TURN.ROTATE_90}


def read_grey(
    fn: str | Path | bytes,  # an image file, or the bytes of one
) -> Image.Image:  # mode "L"
    "A picture as 8 bits of grey, turned as its camera says. Raises: `BadImage`, which names the file."
    with _opened(fn) as image:
        return _grey(image)


def read_picture(
    picture,  # a path, the bytes of an image file, a PIL image, an array or a tensor
) -> tuple[np.ndarray, float]:  # uint8 `[h, w]`, and its pixels to one of the picture
    """A photo, scan or drawing as grey of at most three million pixels, turned as its camera says.

    Of an animation it is the first image. What is transparent becomes paper: black behind light ink, white behind dark.
    Raises: `BadImage`, which names the file.
    """
    if isinstance(picture, (str, Path, bytes)):
        with _opened(picture) as image:
            full = max(image.size)
            image.draft("L", _size_seen(image))  # a JPEG is decoded at a part of its size at once
            image = _grey(image)
    elif isinstance(picture, Image.Image):
        with _refused("the PIL image"):
            _check_size(picture, "the PIL image")
            image, full = _grey(picture), max(picture.size)
    else:
        image = array_image(picture)
        full = max(image.size)
    image.thumbnail(_size_seen(image), Image.Resampling.HAMMING)
    return np.asarray(image), max(image.size) / full


def _size_seen(image: Image.Image) -> tuple[int, int]:
    "Width and height in which digits are looked for in a picture, with its proportions."
    scale = min(1, math.sqrt(MOST_SEEN / (image.width * image.height)))
    return max(1, int(image.width * scale)), max(1, int(image.height * scale))


def one_line_name(
    path: str | Path,
) -> str:
    "`path` as it can be shown: in quotes and with escapes if it holds line ends or other characters that do not print."
    text = str(path)
    return text if text and text.isprintable() else repr(text)


@contextmanager
def _opened(fn: str | Path | bytes) -> Iterator[Image.Image]:
    "The image in a file or in bytes; whatever goes wrong with it becomes a `BadImage`."
    name = f"{len(fn)} bytes" if isinstance(fn, bytes) else one_line_name(fn)
    with _refused(name), io.BytesIO(fn) if isinstance(fn, bytes) else open(fn, "rb") as file:
        start = file.read(12)
        if start[4:8] == b"ftyp" and start[8:] in (b"heic", b"heix", b"mif1", b"msf1"):
            raise BadImage(f"{name} cannot be read as a picture: HEIC is not read; save or send it as JPEG")
        file.seek(0)
        with Image.open(file, formats=FORMATS) as image:
            _check_size(image, name)
            yield image


@contextmanager
def _refused(name: str) -> Iterator[None]:
    "Whatever goes wrong with a picture becomes a `BadImage`: what a decoder meets in damaged bytes can be anything."
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata; images that are too large are refused
            yield
    except BadImage:
        raise
    except Image.DecompressionBombError as e:
        raise BadImage(f"{name} has too many pixels; allowed are 1 to {MOST_PIXELS:,} in all") from e
    except Exception as e:
        reason = "it is no image, or a damaged one"
        if isinstance(e, OSError) and e.errno is not None:
            reason = e.strerror
        elif isinstance(e, ValueError) and "null" in str(e):
            reason = str(e)  # of a name that no file can have
        raise BadImage(f"{name} cannot be read as a picture: {reason}") from e


def _check_size(image: Image.Image, name: str) -> None:
    if not 0 < image.width * image.height <= MOST_PIXELS:
        raise BadImage(f"{name} has {image.width} × {image.height} pixels; allowed are 1 to {MOST_PIXELS:,} in all")


def _grey(image: Image.Image) -> Image.Image:
    "`image` in mode L, upright, on paper."
    image.load()
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged metadata can be anything too, and the picture be whole
        orientation = None
    grey = _flat(image)
    return grey.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else grey


def _flat(image: Image.Image) -> Image.Image:
    "`image` in mode L, on paper."
    if image.mode.startswith("I"):  # up to 16 bits, which Pillow would cut off at 255
        values = np.asarray(image).astype(np.float32)
        values *= 255 / next((top for top in (255, 4095) if values.max() <= top), 65535)  # scanners have 12 bits, too
        return Image.fromarray(values.clip(0, 255, out=values).round(out=values).astype(np.uint8))
    if image.mode == "F":
        values = np.nan_to_num(np.array(image), copy=False)
        top = max(float(values.max()), 1e-6)
        values.clip(0, top, out=values)
        values *= 255 / top if top <= 1 or top > 255 else 1
        return Image.fromarray(values.astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("L")
    image = image if image.mode in ("LA", "RGBA") else image.convert("RGBA")
    grey, opaque = image.convert("L"), image.getchannel("A")
    step = max(1, max(image.size) // 2000)
    values, weights = (np.asarray(band)[::step, ::step].astype(np.float32) for band in (grey, opaque))
    light_ink = (values * weights).sum() > 128 * weights.sum()
    paper = Image.new("L", image.size, 0 if light_ink and opaque.getextrema()[0] < 128 else 255)
    paper.paste(grey, mask=opaque)
    return paper


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
    try:
        if hasattr(array, "detach"):
            array = array.detach().cpu()
            array = array.float() if array.is_floating_point() else array  # NumPy knows no bfloat16
        array = np.asarray(array)
    except (RuntimeError, TypeError, ValueError) as e:
        raise BadImage(f"a {type(array).__name__} is no picture; allowed are arrays of numbers, [h, w]") from e
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
