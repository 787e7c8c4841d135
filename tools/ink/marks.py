"""Draw writing as pens leave it: the ink of the scenes of `scenes.py`."""
import math

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from digitfast.data.mnist_form import stroke_width
from digitfast.synthetic.letters import letter
from digitfast.synthetic.non_digits import PLAIN_FONTS, faces
from digitfast.synthetic.scribbles import scribble

SIDE = 320  # pixels of a scene's width and height
Rng = np.random.Generator


def writing(digits: np.ndarray, rng: Rng) -> tuple[np.ndarray, float]:
    "Return lines of digits and other writing, as coverage 0..1, and their height in pixels."
    ink = Image.new("L", (SIDE, SIDE))
    pen = math.exp(rng.uniform(math.log(0.03), math.log(0.16)))  # width, × height
    height = float(np.clip(math.exp(rng.uniform(math.log(1.3), math.log(45))) / pen, 13, 300))
    if rng.random() < 0.1:
        return np.zeros((SIDE, SIDE), np.float32), height
    pen = max(pen, 1.3 / height)
    slope = math.tan(rng.uniform(-0.3, 0.3)) * (rng.random() < 0.6)
    gap = rng.uniform(-0.02, 0.7)
    turn = math.degrees(-math.atan(slope)) + rng.uniform(-10, 10)
    one = rng.random() < 0.3  # a single mark
    room = SIDE - 0.8 * height
    x0, y = (rng.uniform(*sorted((-0.2 * height, room))) for _ in range(2))
    x0 *= 1 if one else 0.5
    while y < SIDE:
        x = x0 + rng.uniform(-0.3, 0.3) * height
        for _ in range(1 if one else rng.integers(1, 30)):
            if x > SIDE:
                break
            mark = _mark(digits, height * rng.uniform(0.85, 1.15), pen, rng)
            if turn:
                mark = mark.rotate(turn, Image.Resampling.BILINEAR, expand=True)
            box = mark.getbbox() or (0, 0, 1, 1)
            mark = mark.crop(box)
            top = y + slope * (x - x0) + rng.uniform(-0.08, 0.08) * height
            if x + mark.width > 0 and top < SIDE and top + mark.height > 0:
                ink.paste(255, (round(x), round(top)), mark)
            x += (mark.width + height * (gap + rng.uniform(-0.05, 0.1))
                  + (rng.random() < 0.08) * height)
        y += height * rng.uniform(1.1, 3)
        if one or rng.random() < 0.3:
            break
    if rng.random() < 0.3:
        _scrawl(ImageDraw.Draw(ink), height, max(1, round(pen * height)), rng)
    return np.asarray(ink, np.float32) / 255, height


def _scrawl(draw: ImageDraw.ImageDraw, height: float, width: int, rng: Rng) -> None:
    "Draw what underlines or crosses out writing: an almost straight line, a walk, or to and fro."
    kind = rng.random()
    if kind < 0.25:
        x = np.linspace(*np.sort(rng.uniform(0, SIDE, 2)), 8)
        y = rng.uniform(0, SIDE, 2)
        y = np.linspace(y[0], 0.8 * y[0] + 0.2 * y[1], 8) + rng.normal(0, 0.02 * height + 0.5, 8)
        points = np.stack([x, y], 1)
    else:
        points = _walk(rng) if kind < 0.55 else _hatching(rng) if kind < 0.7 else _tangle(rng)
        size = rng.uniform(0.8, 5, 2) * height if rng.random() < 0.5 else rng.uniform(40, 300, 2)
        points = points * np.clip(size, 8 * width, SIDE) + rng.uniform(0.2, 0.8, 2) * SIDE
    draw.line([tuple(point) for point in points], fill=255, width=width, joint="curve")


def _walk(rng: Rng) -> np.ndarray:
    "Return the points `[n, 2]` of a pen that wanders, in a square of side 1 around 0."
    points = np.cumsum(rng.normal(0, 1, (rng.integers(3, 40), 2)), axis=0)
    return (points - points.mean(0)) / np.ptp(points, axis=0)


def _hatching(rng: Rng) -> np.ndarray:
    "Return points like `_walk`'s of a pen that goes to and fro to cross something out."
    n = int(rng.integers(6, 40))
    points = np.stack([np.linspace(-0.5, 0.5, n), 0.5 - np.arange(n) % 2], 1)
    turn = rng.uniform(0, 2 * math.pi)
    points = points + rng.normal(0, rng.uniform(0, 0.1), (n, 2))
    return points @ np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])


def _tangle(rng: Rng) -> np.ndarray:
    "Return points like `_walk`'s of a pen that covers most of a patch, round or square."
    points = rng.uniform(-0.5, 0.5, (rng.integers(8, 80), 2))
    if rng.random() < 0.5:
        points = points[np.hypot(*points.T) < 0.5]
    return points if len(points) > 1 else np.array([[-0.5, -0.5], [0.5, 0.5]])


def _mark(digits: np.ndarray, height: float, pen: float, rng: Rng) -> Image.Image:
    "Return the coverage of a digit, a letter or something else, `height` pixels high."
    kind = rng.random()
    if kind < 0.64:
        source = digits[rng.integers(len(digits))]
    elif kind < 0.77:
        source = letter(rng)
    elif kind < 0.81:
        source = scribble(rng)
    elif kind < 0.85:
        return _typed(height, rng)
    else:
        return _bar(height, pen, rng)
    source = np.asarray(source, np.float32)
    source = source / max(1e-6, source.max())
    rows = np.flatnonzero((source > 0.3).any(1))
    columns = np.flatnonzero((source > 0.3).any(0))
    source = np.pad(source[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1], 2)
    tall = int(np.clip(height, max(48, 3 / pen), 140))  # a pen of less than 3 pixels leaves gaps
    scale = tall / max(source.shape[0] - 4, 0.7 * (source.shape[1] - 4))
    size = max(2, round(source.shape[1] * scale)), max(2, round(source.shape[0] * scale))
    large = np.asarray(Image.fromarray(source).resize(size, Image.BICUBIC))
    shape = np.pad(ndimage.gaussian_filter(large, 0.35 * scale if scale > 1.5 else 0.3) > 0.42,
                   round(0.1 * tall))
    if not shape.any():
        return Image.fromarray((large.clip(0, 1) * 255).astype(np.uint8))
    inside = ndimage.distance_transform_edt(shape)
    outside = ndimage.distance_transform_edt(~shape)
    radius = stroke_width(shape) / 2
    wanted = pen * tall / 2
    middle = (inside == ndimage.maximum_filter(inside, 3)) & (inside > 0.5 * radius)
    middle = ndimage.binary_closing(middle, np.ones((3, 3)))
    depth = np.maximum(inside - outside + max(wanted - radius, -0.9 * radius),
                       wanted - ndimage.distance_transform_edt(~middle))
    depth = ndimage.gaussian_filter(depth.astype(np.float32), 0.8)
    zoom = height / tall
    size = max(2, round(depth.shape[1] * zoom)), max(2, round(depth.shape[0] * zoom))
    cover = (depth + 0.5).clip(0, 1) if zoom < 1 else (
        np.asarray(Image.fromarray(depth).resize(size, Image.BICUBIC)) * zoom + 0.5).clip(0, 1)
    mark = Image.fromarray((cover * 255).astype(np.uint8))
    return mark.resize(size, Image.BOX if zoom < 0.6 else Image.BILINEAR) if zoom < 1 else mark


def _bar(height: float, pen: float, rng: Rng) -> Image.Image:
    "Return the coverage of a stroke that is almost straight: a 1, a dash, a comma or a dot."
    long = height * (rng.uniform(0.6, 1.1) if rng.random() < 0.6 else rng.uniform(0.02, 0.5))
    way = rng.normal(0, 0.35) + (math.pi / 2 if rng.random() < 0.7 else 0)
    wide = max(1.3, pen * height * rng.uniform(0.8, 1.2))
    t = np.linspace(-0.5, 0.5, 6)
    bow = rng.normal(0, rng.choice([0.005, 0.03])) * (1 - 4 * t**2) + rng.normal(0, 0.004, 6)
    x = long * (t * math.cos(way) - bow * math.sin(way))
    y = long * (t * math.sin(way) + bow * math.cos(way))
    fine = 2  # pixels to one of the mark's
    side = math.ceil(long + 2 * wide) + 4
    mark = Image.new("L", (side * fine, max(side, round(height)) * fine))
    foot = mark.height / 2 if rng.random() < 0.6 else mark.height - (side * fine) / 2
    points = [(fine * a + mark.width / 2, fine * b + foot) for a, b in zip(x, y, strict=True)]
    draw = ImageDraw.Draw(mark)
    half = wide * fine / 2
    draw.line(points, fill=255, width=max(1, round(2 * half)), joint="curve")
    for a, b in (points[0], points[-1]):
        draw.ellipse((a - half, b - half, a + half, b + half), fill=255)
    return mark.reduce(fine)


def _typed(height: float, rng: Rng) -> Image.Image:
    "Return the coverage of a few printed letters and digits."
    known = faces(PLAIN_FONTS)
    face = known[rng.integers(len(known))].font_variant(size=max(8, int(height)))
    text = "".join(rng.choice(list("0123456789abcdeknrstxyzABDEGKMR"), rng.integers(1, 6)))
    left, top, right, bottom = face.getbbox(text)
    mark = Image.new("L", (max(1, right - left), max(1, bottom - top)))
    ImageDraw.Draw(mark).text((-left, -top), text, fill=255, font=face)
    return mark
