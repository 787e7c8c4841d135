"""Draw pen strokes with any pen, as cameras, scanners and drawing programs show them."""
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from digitfast.data.mnist_form import mnist_form


def render(
    strokes: Sequence[np.ndarray],  # points of each stroke, float `[k, 2]`: x right, y downwards
    rng: np.random.Generator,
    sides: tuple[float, float] = (14, 110),  # pixels of the drawing's longer side
    pens: tuple[float, float] = (0.012, 0.17),  # width of the pen, as a part of that side
) -> np.ndarray:  # uint8 `[28, 28]`, 0 = paper to 255 = ink
    """Return one drawing of the strokes in MNIST's form.

    Its size and the width of its pen are drawn log-uniformly, but the pen is never thinner than a
    pixel. Some drawings have hard edges, as Paint makes them; some are blurred, faint in places,
    or have an interrupted stroke.
    """
    side = _log_uniform(rng, *sides)
    width = max(1.0, side * _log_uniform(rng, *pens))
    placed = _placed(strokes, side, width)
    has_hard_edges = rng.random() < 0.3
    ink = _drawn(placed, width, zoom=1 if has_hard_edges else 3)
    if rng.random() < 0.1:
        ink = _interrupted(ink, placed, width, rng)
    if rng.random() < 0.25:
        ink = ndimage.gaussian_filter(ink, rng.uniform(0.3, 0.25 + 0.35 * width))
    if rng.random() < 0.2:
        ink = _grainy(ink, rng)
    return mnist_form(ink)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _placed(strokes: Sequence[np.ndarray], side: float, width: float) -> list[np.ndarray]:
    "Return the strokes scaled to a longer side of `side` pixels, with room for the pen around."
    points = np.concatenate(strokes)
    low = points.min(0)
    size = max(*np.ptp(points, axis=0), 1e-6)
    return [(stroke - low) * (side / size) + width + 1 for stroke in strokes]


def _drawn(strokes: Sequence[np.ndarray], width: float, zoom: int) -> np.ndarray:
    "Return ink 0..1, float32 `[h, w]`, of strokes in pixels; `zoom` above 1 makes soft edges."
    size = np.ceil(np.concatenate(strokes).max(0) + width + 1).astype(int)
    image = Image.new("L", tuple((size * zoom).tolist()))
    pen = ImageDraw.Draw(image)
    radius = width * zoom / 2
    for stroke in strokes:
        points = [tuple(point) for point in (stroke * zoom).tolist()]
        if len(points) > 1:
            pen.line(points, fill=255, width=max(1, round(2 * radius)), joint="curve")
        for x, y in (points[0], points[-1]):
            if radius >= 1:
                pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
            else:
                pen.point((x, y), fill=255)
    return np.asarray(image.reduce(zoom), np.float32) / 255


def _interrupted(
    ink: np.ndarray,
    strokes: Sequence[np.ndarray],
    width: float,
    rng: np.random.Generator,
) -> np.ndarray:
    "Return `ink` without a spot on one of the strokes, as where a pen skips."
    stroke = strokes[rng.integers(len(strokes))]
    x, y = stroke[rng.integers(len(stroke))]
    ys, xs = np.mgrid[:ink.shape[0], :ink.shape[1]]
    radius = width * rng.uniform(0.5, 0.9)
    return np.where(np.hypot(xs - x, ys - y) < radius, 0, ink)


def _grainy(ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    "Return `ink` as a dry pen or a noisy camera shows it, paler in patches, never gone."
    patches = ndimage.zoom(rng.uniform(0.35, 1, (5, 5)), np.array(ink.shape) / 5, order=1)
    return np.clip(ink * patches[:ink.shape[0], :ink.shape[1]], 0, 1)
