"""Images of what is no digit, from which a network learns to say so.

They show letters, scribbles, pieces of digits, and noise.
"""
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from scipy import ndimage

from digitfast.data.mnist_form import SIDE, mnist_form
from digitfast.errors import BadSetting
from digitfast.synthetic.letters import letter, shape
from digitfast.synthetic.noise import noise
from digitfast.synthetic.scribbles import scribble

LARGE = 112  # pixels of a side of the enlarged images that are cut and joined

# Parts of a digit that are no digit: the digit, the side that is kept, its least and most height as
# a part of the whole. Others are digits themselves: the top of 8 and 9 is a 0, of 2 and 3 a 7, much
# of 1, 4, 6, 7 and 9 a 1. So are left and right halves: of 0 they are a 6 and a 7, of 3 and 8 a 6
# and a 3, of 4 and 9 a 6 and a 1.
CUTS = [
    (0, "top", 0.3, 0.5), (0, "bottom", 0.3, 0.5), (2, "bottom", 0.3, 0.45),
    (3, "bottom", 0.3, 0.45), (4, "top", 0.3, 0.45), (5, "top", 0.25, 0.4),
    (5, "bottom", 0.25, 0.4), (6, "bottom", 0.2, 0.3), (8, "top", 0.2, 0.28),
    (8, "bottom", 0.2, 0.28), (8, "middle", 0.25, 0.4), (9, "top", 0.2, 0.28),
]
# Digits that are none in the mirror. To many, a mirrored 2 is a 5 and a 5 a 2, and 4 is known from
# both sides.
MIRRORED = (3, 7)

FONTS = ("DejaVu*.ttf", "STIXGeneral*.ttf")  # these have all the marks
PLAIN_FONTS = ("cm[brt]*10.ttf", "cmss10.ttf", "cmmi10.ttf")  # these have letters
TYPE = "ACEFHKLMNPRTUVWXYacdefhijkmnprtuvwx"
TYPE_UNSURE = "BDGJQSZbgsyz"  # a tenth as frequent as others
MARKS = "&%$#@?!+=*()<~^:;\"€£¥©πΔΩ±×÷ΓΛΞΠΣΦΨαγηκλμτχψωЖШЩЮЯЫДФ"


def non_digits(
    n: int,  # how many images
    digits: np.ndarray,  # uint8 `[k, 28, 28]`, 0 = paper to 255 = ink: training images
    labels: np.ndarray,  # integers `[k]`, 0..9, each at least once: what the digits are
    rng: np.random.Generator,
) -> np.ndarray:  # uint8 `[n, 28, 28]`, 0 = paper to 255 = ink
    """Return images in MNIST's form that nobody reads as a digit, of kinds mixed as in `KINDS`.

    The same generator in the same state gives the same images.

    Raises: `BadSetting` for other shapes and types, and if one of the ten digits is missing.
    """
    source = _checked(n, digits, labels)
    ends = np.cumsum([weight for weight, _ in KINDS.values()])
    draws = [draw for _, draw in KINDS.values()]
    kinds = np.searchsorted(ends, rng.random(n) * ends[-1], side="right")
    images = np.empty((n, SIDE, SIDE), np.uint8)
    for image, kind in zip(images, kinds, strict=True):
        image[:] = draws[kind](rng, source)
    return images


@dataclass
class _Digits:
    "Training images from which to pick one of a given digit."
    images: np.ndarray  # uint8 `[k, 28, 28]`
    places: list[np.ndarray]  # indices of the images of each digit

    def pick(self, digit: int, rng: np.random.Generator) -> np.ndarray:
        "Return an image of `digit`, enlarged and cropped, float32 `[h, w]`, 0 = paper to 1 = ink."
        places = self.places[digit]
        image = Image.fromarray(self.images[places[rng.integers(len(places))]])
        return _cut_out(
            np.asarray(image.resize((LARGE, LARGE), Image.Resampling.BICUBIC), np.float32) / 255)


def _checked(n: int, digits: np.ndarray, labels: np.ndarray) -> _Digits:
    if not isinstance(n, (int, np.integer)) or n < 0:
        raise BadSetting(f"n must be a whole number of at least 0 (images), not {n!r}")
    if digits.dtype != np.uint8 or digits.ndim != 3 or digits.shape[1:] != (SIDE, SIDE):
        raise BadSetting(f"digits must be uint8 [k, {SIDE}, {SIDE}], "
                         f"not {digits.dtype} {list(digits.shape)}")
    if labels.shape != digits.shape[:1] or labels.dtype.kind not in "iu":
        raise BadSetting(f"labels must be integers [{len(digits)}], "
                         f"not {labels.dtype} {list(labels.shape)}")
    found = np.unique(labels).tolist()
    if found != list(range(10)):
        raise BadSetting(f"digits must show each digit from 0 to 9 and nothing else, not {found}")
    return _Digits(digits, [np.flatnonzero(labels == digit) for digit in range(10)])


def _cut_out(ink: np.ndarray) -> np.ndarray:
    "Return the part of `ink` that is not empty."
    rows = np.flatnonzero((ink > 0.25).any(1))
    columns = np.flatnonzero((ink > 0.25).any(0))
    return ink[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1] if len(rows) else ink


def _piece(rng: np.random.Generator, source: _Digits) -> np.ndarray:
    "Return a part of a digit, one of `CUTS`, but never a mere stroke or a ring."
    for _ in range(10):
        digit, side, least, most = CUTS[rng.integers(len(CUTS))]
        part = _part(source.pick(digit, rng), side,
                     rng.uniform(least, most), rng.uniform(-0.25, 0.25))
        if not (_is_slim(part, 0.55) or _is_ring(part)):
            return part
    return shape(rng)


def _part(
    ink: np.ndarray,
    side: str,  # of the ink that is kept: top, bottom or middle
    kept: float,  # part of the height, 0..1
    tilt: float,  # slope of the cut
) -> np.ndarray:
    "Return the part of `ink` on one side of a straight cut, without small remains."
    h, w = ink.shape
    ys, xs = np.mgrid[:h, :w]
    place = (ys + tilt * (xs - w / 2)) / h
    ink = ink * {"top": place < kept, "bottom": place > 1 - kept,
                 "middle": abs(place - 0.5) < kept / 2}[side]
    spots, n = ndimage.label(ink > 0.25)
    sizes = np.bincount(spots.ravel(), minlength=n + 1)[1:]
    large = np.flatnonzero(sizes > 0.3 * sizes.max(initial=0)) + 1
    return _cut_out(ink * np.isin(spots, large))


def _is_slim(ink: np.ndarray, ratio: float) -> bool:
    "Return whether `ink` is upright and narrower than `ratio` × its height, or is next to nothing."
    ys, xs = np.nonzero(ink > 0.5)
    if max(ink.shape) < 30 or len(ys) < 150:
        return True
    spread, axes = np.linalg.eigh(np.cov(xs, ys))
    return bool(abs(axes[1, 1]) > 0.5 and spread[0] < ratio**2 * spread[1])


def _is_ring(ink: np.ndarray) -> bool:
    "Return whether `ink` surrounds paper, or nearly does, like a 0."
    thin = np.pad(ink > 0.5, 4)
    thick = ndimage.binary_dilation(thin, iterations=4)
    return any(ndimage.binary_fill_holes(marks).sum() > 1.01 * marks.sum()
               for marks in (thin, thick))


def _joined(rng: np.random.Generator, source: _Digits) -> np.ndarray:
    """Return two or three digits as if they were one: side by side, touching or overlapping.

    The first or the last may be cut off.
    """
    names = rng.integers(0, 10, 2 if rng.random() < 0.8 else 3)
    parts = [source.pick(digit, rng) for digit in names]
    if rng.random() < 0.4:
        end = -int(rng.integers(2))  # -1 keeps the left part of the last, 0 the right of the first
        h, w = parts[end].shape
        place = round(w * rng.uniform(0.5, 0.75))
        rest = _cut_out(parts[end][:, :place] if end else parts[end][:, w - place:])
        if names[end] != 1 and rest.shape[0] > 0.7 * h and rest.sum() > 0.45 * parts[end].sum():
            parts[end] = rest  # less would be a speck beside a digit
    height = max(part.shape[0] for part in parts)
    canvas = np.zeros((height + 20, sum(part.shape[1] for part in parts) + 40), np.float32)
    right = 0
    for i, part in enumerate(parts):
        h, w = part.shape
        overlap = rng.uniform(-0.1, 0.25) * min(w, parts[i - 1].shape[1])
        slim = 1 in names[max(i - 1, 0):i + 1]  # a 1 that touches a digit makes a 6, 9 or 4 of it
        left = 0 if i == 0 else right + rng.integers(4, 12) if slim else right - round(overlap)
        top = (height - h) // 2 + rng.integers(0, 20)
        spot = canvas[top:top + h, left:left + w]
        np.maximum(spot, part, out=spot)
        right = left + w
    ink = _cut_out(canvas)
    squeezed = (max(8, round(ink.shape[1] * rng.uniform(0.6, 1))), ink.shape[0])
    return np.asarray(Image.fromarray(ink).resize(squeezed, Image.Resampling.BILINEAR)).clip(0, 1)


def _mirrored(rng: np.random.Generator, source: _Digits) -> np.ndarray:
    "Return a digit of `MIRRORED` as in a mirror."
    for _ in range(10):
        ink = source.pick(MIRRORED[rng.integers(len(MIRRORED))], rng)[:, ::-1]
        if not (_is_slim(ink, 0.45) or _is_ring(ink)):  # a slim 7, a closed 3
            return ink
    return shape(rng)


@cache
def faces(patterns: tuple[str, ...]) -> list[ImageFont.FreeTypeFont]:
    "Return matplotlib's fonts whose file names match one of the patterns, in 90 pixels."
    folder = Path(matplotlib.get_data_path()) / "fonts/ttf"
    files = sorted(file for pattern in patterns for file in folder.glob(pattern)
                   if "Display" not in file.name)
    return [ImageFont.truetype(file, 90) for file in files]


def _typed(rng: np.random.Generator) -> np.ndarray:
    "Return a letter or mark of a font, warped, as ink of 0 to 1."
    marks = rng.random() < 0.35
    unsure = not marks and rng.random() < len(TYPE_UNSURE) / 10 / len(TYPE)
    names = MARKS if marks else TYPE_UNSURE if unsure else TYPE
    fonts = faces(FONTS if marks else FONTS + PLAIN_FONTS)
    image = Image.new("L", (136, 136))
    ImageDraw.Draw(image).text((68, 68), names[rng.integers(len(names))], 255,
                               fonts[rng.integers(len(fonts))], "mm")
    return _warped(image, rng, 0.4 if unsure else 1)


def _warped(image: Image.Image, rng: np.random.Generator, strength: float) -> np.ndarray:
    "Return `image` slightly turned, slanted, zoomed and bent, with thinner or thicker strokes."
    side = image.size[0]
    angle, shear, wide = strength * rng.uniform(-1, 1, 3) * (math.radians(15), 0.2, 0.25)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    matrix = (turn @ [[1, 0], [shear, 1 + wide]]).astype(np.float32)  # of y and x
    places = np.mgrid[:side, :side].reshape(2, -1).astype(np.float32) - side / 2
    bends = rng.normal(0, 3 * strength * rng.random(), (2, 4, 4)).astype(np.float32)
    bends = [np.asarray(Image.fromarray(bend).resize(image.size, Image.Resampling.BICUBIC))
             for bend in bends]
    places = matrix @ places + side / 2 + np.stack(bends).reshape(2, -1)
    ink = ndimage.map_coordinates(np.asarray(image), places.reshape(2, side, side), order=1)
    soft = np.asarray(
        Image.fromarray(ink).filter(ImageFilter.BoxBlur(rng.uniform(0.5, 3))), np.float32) / 255
    return np.clip((soft - rng.uniform(0.15, 0.45) * soft.max()) * 6 + 0.5, 0, 1)


KINDS = {  # name: part of the images, and what draws one
    "letters": (0.32, lambda rng, _: mnist_form(letter(rng))),
    "type": (0.14, lambda rng, _: mnist_form(_typed(rng))),
    "shapes": (0.06, lambda rng, _: mnist_form(shape(rng))),
    "scribbles": (0.19, lambda rng, _: mnist_form(scribble(rng))),
    "pieces": (0.08, lambda rng, source: mnist_form(_piece(rng, source))),
    "joined": (0.11, lambda rng, source: mnist_form(_joined(rng, source))),
    "mirrored": (0.02, lambda rng, source: mnist_form(_mirrored(rng, source))),
    "noise": (0.08, lambda rng, _: noise(rng)),
}
