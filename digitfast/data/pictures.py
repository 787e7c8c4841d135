"""Image files, and pictures in any other form, as grey pixels; needs neither torch nor fastai."""
import io
import math
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from digitfast.errors import BadImage, BadSetting

MAX_PIXELS = 178_000_000  # per picture; slightly more and Pillow refuses it as a bomb
#: Suffixes of the pictures in a folder.
PICTURES = {".bmp", ".gif", ".heic", ".ico", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm",
            ".tga", ".tif", ".tiff", ".webp"}
CLUTTER = {"Thumbs.db", "desktop.ini"}  # files that operating systems leave in folders of pictures
#: Formats that are read: those of cameras, scanners and drawing programs. None starts a program.
_FORMATS = ("BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
_ONE_THREAD = threading.RLock()  # of several opens files at a time: all share filters of warnings
_TURN = Image.Transpose
#: The transposition that turns a picture of each EXIF orientation upright.
_UPRIGHT = {2: _TURN.FLIP_LEFT_RIGHT, 3: _TURN.ROTATE_180, 4: _TURN.FLIP_TOP_BOTTOM,
            5: _TURN.TRANSPOSE, 6: _TURN.ROTATE_270, 7: _TURN.TRANSVERSE, 8: _TURN.ROTATE_90}


def read_grey(
    fn,  # a path, the bytes of an image file, an open file, a PIL image, an array or a tensor
) -> Image.Image:  # mode "L"
    "Return a picture in 8-bit grey, upright by its EXIF data. Raises: `BadImage` naming the file."
    if hasattr(fn, "dtype"):
        return array_image(fn)
    with _opened(fn) as image:
        return _grey(image)


def read_picture(
    picture,  # a path, the bytes of an image file, an open file, a PIL image, an array or a tensor
) -> tuple[np.ndarray, float]:  # uint8 `[h, w]`; scale: its pixels per pixel of the picture
    """Return a photo, scan or drawing in grey, at most 3 million pixels, upright by its EXIF data.

    Of several pages, or of an animation, it is the first one, with a warning. What is transparent
    becomes paper: black under light ink, white under dark.
    Raises: `BadImage` naming the file.
    """
    if is_file(picture) or isinstance(picture, Image.Image):
        with _opened(picture) as image:
            full = max(image.size)
            if image is not picture:
                image.draft("L", _working_size(image))  # decodes a JPEG at a fraction of its size
            image = _grey(image)
    else:
        image = array_image(picture)
        full = max(image.size)
    image.thumbnail(_working_size(image), Image.Resampling.HAMMING)
    return np.asarray(image), max(image.size) / full


def _working_size(
    image: Image.Image,
    max_pixels: int = 3_000_000,  # 2000 × 1500 for a photo
) -> tuple[int, int]:
    "Return the width and height at which a picture is searched for digits, in its proportions."
    scale = min(1, math.sqrt(max_pixels / (image.width * image.height)))
    return max(1, int(image.width * scale)), max(1, int(image.height * scale))


def cut_region(
    picture,  # as for `read_picture`
    region: Sequence[float],  # left, top, width, height: in pixels, or all as parts, 0..1
) -> tuple[Image.Image, tuple[int, int]]:  # mode "L"; left and top, in pixels
    "Return a region of a picture, at its full resolution. Raises: `BadImage`, `BadSetting`."
    image = read_grey(picture)
    allowed = (f"a region must be left,top,width,height within {image.width} × {image.height} "
               "pixels, or parts of them such as 0.5,0,0.5,0.25")
    try:
        sides = [float(side) for side in region]
    except (TypeError, ValueError):
        sides = []
    if len(sides) != 4 or not all(map(math.isfinite, sides)):
        raise BadSetting(f"{allowed}; not {region!r}")
    across, down = image.size if max(sides) <= 1 else (1, 1)
    left, top, width, height = sides
    left, right = round(left * across), round((left + width) * across)
    top, bottom = round(top * down), round((top + height) * down)
    if not (0 <= left < right <= image.width and 0 <= top < bottom <= image.height):
        raise BadImage(f"{allowed}; not {','.join(f'{side:g}' for side in sides)}")
    return image.crop((left, top, right, bottom)), (left, top)


def one_line_name(
    path: str | Path,
) -> str:
    "Return `path` for display, quoted and escaped if it holds characters that cannot be printed."
    text = str(path)
    return text if text and text.isprintable() else repr(text)


def is_file(
    picture,
) -> bool:
    "Return whether a picture is a path, the bytes of an image file, or a file open for reading."
    return isinstance(picture, (str, Path, bytes)) or callable(getattr(picture, "read", None))


@contextmanager
def _opened(fn) -> Iterator[Image.Image]:
    "Open the image in a file or in bytes, or take an opened one. Raises: `BadImage`, nothing else."
    if isinstance(fn, Image.Image):
        with raise_bad_image("the PIL image"):
            _check_size(fn, "the PIL image")
            yield fn
        return
    is_path = isinstance(fn, (str, Path))
    name = one_line_name(fn) if is_path else "the open file"
    if isinstance(fn, bytes):
        name = f"{len(fn)} bytes"
    with (raise_bad_image(name),
          open(fn, "rb") if is_path else io.BytesIO(_content(fn)) as file):
        formats = _formats_of(file.read(12), name)
        file.seek(0)
        with Image.open(file, formats=formats) as image:
            _check_size(image, name)
            more = _further_pages(image)
            yield image
    if more:
        warnings.warn(f"{name} {more}; only the first is read", stacklevel=4)


def _content(fn) -> bytes:
    "Return the bytes of an image file that is given as bytes or open."
    if isinstance(fn, io.TextIOBase):
        raise BadImage('the file is open as text; open it with mode "rb"')
    return fn if isinstance(fn, bytes) else fn.read()


def _formats_of(start: bytes, name: str) -> tuple[str, ...]:
    "Return the formats that a file may have, by its first 12 bytes. Raises: `BadImage`."
    if start.startswith(b"%PDF"):
        raise BadImage(f"{name} is a PDF, which has pages: digitfast predict and read take it as a "
                       "file, and document_pages() gives its pages")
    if not (start[4:8] == b"ftyp" and start[8:] in (b"heic", b"heix", b"mif1", b"msf1")):
        return _FORMATS
    try:
        import pillow_heif
    except ImportError:
        raise BadImage(f"{name} is a HEIC, which needs pillow-heif: pip install digitfast[heic]; "
                       "or save it as JPEG") from None
    pillow_heif.register_heif_opener()
    return ("HEIF",)


def _further_pages(image: Image.Image) -> str:
    "Return words for what a file holds besides the image that is read."
    if image.format == "TIFF":
        pages = getattr(image, "n_frames", 1)
        return f"has {pages} pages" if pages > 1 else ""
    is_animated = image.format != "MPO" and getattr(image, "is_animated", False)
    return "has several images" if is_animated else ""


@contextmanager
def raise_bad_image(
    name: str,  # of the file, for messages
) -> Iterator[None]:
    "Turn every exception into a `BadImage`: damaged bytes can make a decoder raise anything."
    try:
        with _ONE_THREAD, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd metadata; pictures too large are refused
            yield
    except BadImage:
        raise
    except Image.DecompressionBombError as e:
        raise BadImage(f"{name} has too many pixels; allowed are 1 to {MAX_PIXELS:,} in all") from e
    except Exception as e:
        reason = "it is not an image, or it is damaged"
        if isinstance(e, OSError) and e.errno is not None:
            reason = e.strerror
        elif isinstance(e, ValueError) and "null" in str(e):
            reason = str(e)  # about a name that no file can have
        raise BadImage(f"{name} cannot be read as a picture: {reason}") from e


def _check_size(image: Image.Image, name: str) -> None:
    if not 0 < image.width * image.height <= MAX_PIXELS:
        raise BadImage(f"{name} has {image.width} × {image.height} pixels; "
                       f"allowed are 1 to {MAX_PIXELS:,} in all")


def _grey(image: Image.Image) -> Image.Image:
    "Return `image` in mode L, upright, on paper."
    image.load()
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged metadata can raise anything, and the picture may still be whole
        orientation = None
    grey = _flatten(image)
    return grey.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else grey


def _flatten(image: Image.Image) -> Image.Image:
    "Return `image` in mode L, on paper."
    if image.mode.startswith("I"):  # up to 16 bits, which Pillow would clip at 255
        values = np.asarray(image).astype(np.float32)
        # 8 bits, the 12 bits of scanners, or 16
        values *= 255 / next((top for top in (255, 4095) if values.max() <= top), 65535)
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
    grey = image.convert("L")
    opaque = image.getchannel("A")
    step = max(1, max(image.size) // 2000)
    values, weights = (np.asarray(band)[::step, ::step].astype(np.float32)
                       for band in (grey, opaque))
    light_ink = (values * weights).sum() > 128 * weights.sum()
    paper = Image.new("L", image.size, 0 if light_ink and opaque.getextrema()[0] < 128 else 255)
    paper.paste(grey, mask=opaque)
    return paper


def fit_square(
    image: Image.Image,  # mode "L"
    size: int,  # side of the square, in pixels
) -> Image.Image:
    "Scale `image` to `size` × `size` pixels, its proportions kept, with paper at the sides."
    square = (size, size)
    if image.size == square:
        return image
    return ImageOps.pad(image, square, Image.Resampling.LANCZOS, color=0)


def array_image(
    array,  # `[h, w]`, `[c, h, w]` or `[h, w, c]`; c is 1, 3 or 4; integers 0..255, floats 0..1
) -> Image.Image:  # mode "L"
    "Return a NumPy array or a torch tensor as a picture. Raises: `BadImage`."
    try:
        if hasattr(array, "detach"):
            array = array.detach().cpu()
            array = array.float() if array.is_floating_point() else array  # NumPy has no bfloat16
        array = np.asarray(array)
    except (RuntimeError, TypeError, ValueError) as e:
        raise BadImage(f"a {type(array).__name__} is not a picture; "
                       "allowed are arrays of numbers, [h, w]") from e
    shape = array.shape
    if array.ndim == 3 and 1 in (shape[0], shape[2]):
        array = array[0] if shape[0] == 1 else array[:, :, 0]
    elif array.ndim == 3 and shape[0] in (3, 4) and shape[2] not in (3, 4):
        array = np.moveaxis(array, 0, 2)
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise BadImage(f"an array of shape {list(shape)} is not a picture; allowed are [h, w] and, "
                       "with 1, 3 or 4 channels, [c, h, w] and [h, w, c]")
    top = 1 if array.dtype.kind in "fb" else 255
    # a NaN compares false
    if not (array.dtype.kind in "fbiu" and array.min() >= 0 and array.max() <= top):
        raise BadImage(f"an array of {array.dtype} is not a picture, or its values are out of "
                       "range; allowed are integers in 0..255 and floats in 0..1")
    array = (array * 255).round().astype(np.uint8) if top == 1 else array.astype(np.uint8)
    return _flatten(Image.fromarray(np.ascontiguousarray(array)))
