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
#: What a folder's pictures are known by.
PICTURES = {".bmp", ".gif", ".heic", ".ico", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tga", ".tif", ".tiff",
            ".webp"}
CLUTTER = {"Thumbs.db", "desktop.ini"}  # what operating systems leave in folders of pictures
MOST_PIXELS = 178_000_000  # of one picture; a little more and Pillow refuses it as a bomb
MOST_SEEN = 3_000_000  # pixels of a picture that digits are looked for in: 2000 × 1500 of a photo, say
_TURN = Image.Transpose
#: What brings a picture of that EXIF orientation upright.
UPRIGHT = {2: _TURN.FLIP_LEFT_RIGHT, 3: _TURN.ROTATE_180, 4: _TURN.FLIP_TOP_BOTTOM, 5: _TURN.TRANSPOSE,
           6: _TURN.ROTATE_270, 7: _TURN.TRANSVERSE, 8: _TURN.ROTATE_90}


def read_grey(
    fn,  # path of an image file, the bytes of one, one that is open for reading, or an opened PIL image
) -> Image.Image:  # mode "L"
    "A picture as 8 bits of grey, turned as its camera says. Raises: `BadImage`, which names the file."
    with _opened(fn) as image:
        return _grey(image)


def read_picture(
    picture,  # a path, the bytes of an image file, an open one, a PIL image, an array or a tensor
) -> tuple[np.ndarray, float]:  # uint8 `[h, w]`, and its pixels to one of the picture
    """A photo, scan or drawing as grey of at most three million pixels, turned as its camera says.

    Of several pages, and of an animation, it is the first one, and a warning says so. What is transparent becomes
    paper: black behind light ink, white behind dark.
    Raises: `BadImage`, which names the file.
    """
    if is_file(picture) or isinstance(picture, Image.Image):
        with _opened(picture) as image:
            full = max(image.size)
            if image is not picture:
                image.draft("L", _size_seen(image))  # a JPEG is decoded at a part of its size at once
            image = _grey(image)
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


def is_file(
    picture,
) -> bool:
    "Whether a picture is given as a path, as the bytes of an image file, or as a file that is open for reading."
    return isinstance(picture, (str, Path, bytes)) or callable(getattr(picture, "read", None))


@contextmanager
def _opened(fn) -> Iterator[Image.Image]:
    "The image in a file or in bytes, or an opened one; whatever goes wrong with it becomes a `BadImage`."
    if isinstance(fn, Image.Image):
        with _refused("the PIL image"):
            _check_size(fn, "the PIL image")
            yield fn
        return
    name = one_line_name(fn) if isinstance(fn, (str, Path)) else "the open file"
    if isinstance(fn, bytes):
        name = f"{len(fn)} bytes"
    with _refused(name), open(fn, "rb") if isinstance(fn, (str, Path)) else io.BytesIO(_content(fn)) as file:
        _check_format(file.read(12), name)
        file.seek(0)
        with Image.open(file, formats=FORMATS) as image:
            _check_size(image, name)
            more = _further_pages(image)
            yield image
    if more:
        warnings.warn(f"{name} {more}; only the first is read", stacklevel=4)


def _content(fn) -> bytes:
    "The bytes of an image file, or of one that is open."
    if isinstance(fn, io.TextIOBase):
        raise BadImage('a file that is open as text is no picture; open it with mode "rb"')
    return fn if isinstance(fn, bytes) else fn.read()


def _check_format(start: bytes, name: str) -> None:
    "Raise `BadImage` for a file of a known format that is not read, by its first 12 bytes."
    if start[4:8] == b"ftyp" and start[8:] in (b"heic", b"heix", b"mif1", b"msf1"):
        raise BadImage(f"{name} cannot be read as a picture: HEIC is not read; save or send it as JPEG")
    if start.startswith(b"%PDF"):
        raise BadImage(f"{name} cannot be read as a picture: PDF is not read; save its pages as PNG, as by "
                       "pdftoppm -r 200 -png FILE.pdf page")


def _further_pages(image: Image.Image) -> str:
    "What a file holds besides the image that is read, in words."
    if image.format == "TIFF":
        pages = getattr(image, "n_frames", 1)
        return f"has {pages} pages" if pages > 1 else ""
    return "has several images" if image.format != "MPO" and getattr(image, "is_animated", False) else ""


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
    array,  # `[h, w]`, or with 1, 3 (RGB) or 4 (RGBA) channels in front or behind; integers 0..255, floats 0..1
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
    elif array.ndim == 3 and shape[0] in (3, 4) and shape[2] not in (3, 4):
        array = np.moveaxis(array, 0, 2)
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise BadImage(f"an array of shape {list(shape)} is no picture; allowed are [h, w], and with 1, 3 or 4 "
                       "channels [c, h, w] and [h, w, c]")
    top = 1 if array.dtype.kind in "fb" else 255
    if not (array.dtype.kind in "fbiu" and array.min() >= 0 and array.max() <= top):  # a NaN compares false
        raise BadImage(f"an array of {array.dtype} is no picture, or out of range; "
                       "allowed are integers in 0..255 and floats in 0..1")
    array = (array * 255).round().astype(np.uint8) if top == 1 else array.astype(np.uint8)
    return _flat(Image.fromarray(np.ascontiguousarray(array)))
