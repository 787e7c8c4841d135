"""Synthetic photos of whole pages of digits in lines, to measure reading.

For evaluation only, like `photos.py`.
"""
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from digitfast.errors import BadImage
from digitfast.synthetic.pen import UNIT, redraw
from digitfast.synthetic.photos import LINES, PENS

PEN = (0.045, 0.09)  # least and most width, × digit height: fine ballpoint to felt pen
PAPER = (245, 244, 240)  # red, green, blue
APART = 1.75  # distance between lines of digits, × digit height
MOST_IN_LINE = 9  # digits
MARGIN = 0.08  # part of each side of the page that is left free


@dataclass(frozen=True, eq=False)
class Page:
    "A synthetic photo of a page, and how many digits are in each of its lines, from the top."
    image: Image.Image  # mode "RGB"
    lengths: list[int]


def synthetic_page(
    digits: np.ndarray,  # uint8 `[n, 28, 28]`, n of 1 to 100, 0 = paper to 255 = ink
    rng: np.random.Generator,  # gives every choice: the same state gives the same bytes
    size: tuple[int, int] = (2000, 1500),  # width and height in pixels
) -> Page:
    """Return a photo of a page of `digits` that one pen wrote, in their order, in lines of up to 9.

    The paper is plain, ruled or squared, and almost straight, in light that falls off to one side.
    All lines rise or fall alike.

    Raises: `BadImage` for other digits.
    """
    shape = getattr(digits, "shape", ())
    dtype = getattr(digits, "dtype", type(digits).__name__)
    if dtype != np.uint8 or shape[1:] != (28, 28) or not 1 <= shape[0] <= 100:
        raise BadImage("digits must be uint8 [n, 28, 28] with n from 1 to 100, "
                       f"not {dtype} {list(shape)}")
    lengths = _lengths(len(digits), rng)
    width, height = size
    room = 1 - 2 * MARGIN
    tall = rng.uniform(0.5, 0.95) * min(
        room * height / (len(lengths) * APART), room * width / (max(lengths) * 1.5))
    page = np.empty((height, width, 3), np.float32)
    page[:] = PAPER
    _rule(page, tall, rng)
    names = ("blue ballpoint", "black ballpoint", "pencil")
    ink = np.array(PENS[names[rng.integers(3)]][0])
    pen = rng.uniform(*PEN)
    slope = rng.uniform(-0.03, 0.03)
    first = 0
    for i, n in enumerate(lengths):
        foot = MARGIN * height + tall * (1 + APART * i)
        _write(page, digits[first:first + n], (tall, foot, slope, pen), ink, rng)
        first += n
    return Page(_photographed(page, tall, rng), lengths)


def _lengths(n: int, rng: np.random.Generator) -> list[int]:
    "Return how many of `n` digits are in each line: some lines are full, others shorter."
    most = int(rng.integers(3, MOST_IN_LINE + 1))
    lengths = []
    while n:
        lengths.append(min(n, int(rng.integers(max(1, most - 3), most + 1))))
        n -= lengths[-1]
    return lengths


def _rule(page: np.ndarray, tall: float, rng: np.random.Generator) -> None:
    "Print lines or squares on two pages of three."
    kind = rng.choice(["plain", "ruled", "squared"])
    pitch = tall * rng.uniform(0.5, 1.4)
    thick = max(1, round(tall / 40))
    colour = LINES[str(rng.choice(list(LINES)))]
    start = rng.uniform(0, pitch, 2)
    if kind != "plain":
        for y in np.arange(start[0], page.shape[0], pitch).astype(int):
            page[y:y + thick] = colour
    if kind == "squared":
        for x in np.arange(start[1], page.shape[1], pitch).astype(int):
            page[:, x:x + thick] = colour


def _write(
    page: np.ndarray,  # float32 `[h, w, 3]`, changed in place
    digits: np.ndarray,
    place: tuple,  # digit height and foot at the left, in pixels; slope; width of the pen
    ink: np.ndarray,  # its colour
    rng: np.random.Generator,
) -> None:
    "Write one line of digits on `page`."
    tall, foot, slope, pen = place
    x = MARGIN * page.shape[1] + tall * rng.uniform(0, 0.7)
    for digit in digits:
        depth = redraw(digit, UNIT, pen)
        zoom = tall * rng.uniform(0.85, 1.15) / UNIT
        size = [max(1, round(side * zoom)) for side in depth.shape[::-1]]
        cover = np.asarray(Image.fromarray(depth).resize(size, Image.Resampling.BICUBIC)) * zoom
        cover = 0.9 * (cover + 0.5).clip(0, 1)[..., None]
        top = max(0, round(foot + slope * x + tall * rng.uniform(-0.06, 0.06)) - size[1])
        spot = page[top:top + size[1], round(x):round(x) + size[0]]
        cover = cover[:spot.shape[0], :spot.shape[1]]
        spot += (ink - spot) * cover
        x += size[0] + tall * rng.uniform(0.08, 0.4)


def _photographed(page: np.ndarray, tall: float, rng: np.random.Generator) -> Image.Image:
    "Return `page` in uneven light, turned a little, blurred, with noise, through JPEG."
    height, width, _ = page.shape
    right, down = rng.uniform(0, 0.5) * rng.uniform(0, 1, 2)
    light = (1 - right * np.linspace(0, 1, width)[:, None]
             - down * np.linspace(0, 1, height)[:, None, None])
    image = Image.fromarray((page * light).clip(0, 255).astype(np.uint8))
    image = image.rotate(rng.uniform(-3, 3), Image.Resampling.BICUBIC, fillcolor=PAPER)
    image = image.filter(ImageFilter.GaussianBlur(max(0.6, 0.008 * tall)))
    noise = rng.uniform(1, 5) * rng.standard_normal((height, width, 1), np.float32)
    file = io.BytesIO()
    Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8)).save(
        file, "JPEG", quality=int(rng.integers(60, 95)))
    return Image.open(file).convert("RGB")
