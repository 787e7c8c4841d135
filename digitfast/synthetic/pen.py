"""Drawing with a pen: strokes, their curves, how a hand changes them, and digits drawn again."""
import math
from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image, ImageDraw
from scipy.ndimage import distance_transform_edt, find_objects, gaussian_filter, gaussian_laplace

TALL = 90  # pixels of the longer side of a drawing
FINE = 2  # pixels to one of those while the pen draws
PEN = (0.05, 0.14)  # least and most width, part of the longer side
UNIT = 80  # pixels per digit height where digits are redrawn; a photo's page is measured in them
MARGIN = 3  # pixels around the ink of a redrawn digit


@cache
def _strokes(way: str) -> list[tuple[np.ndarray, np.ndarray]]:
    "Return the points `[k, 2]` of each stroke, and the indices of those where a smooth piece ends."
    strokes = []
    for stroke in way.split("/"):
        points = stroke.split()
        ends = [i for i, point in enumerate(points)
                if point.endswith("!") or i in (0, len(points) - 1)]
        strokes.append((np.array([[int(point[0]), int(point[1])] for point in points], float),
                        np.array(ends)))
    return strokes


def write(
    ways: str,  # an entry of the tables in `letters.py`
    rng: np.random.Generator,
    jitter: float = 0.35,  # deviation of a point, in units of the letter's grid
    careless: float = 0,  # probability that sharp turns become round
) -> list[np.ndarray]:  # a curve `[k, 2]` for each stroke
    "Return the strokes of a letter, in one of its ways, each point a little beside its place."
    ways = ways.split(" | ")
    curves = []
    rounded = rng.random() < careless
    for points, ends in _strokes(ways[rng.integers(len(ways))]):
        points = points + rng.normal(0, jitter, points.shape)
        ends = ends[[0, -1]] if rounded else ends
        pieces = [points[a:b + 1] for a, b in zip(ends, ends[1:], strict=False)]
        curves.append(np.concatenate([smooth(bowed(piece, rng)) for piece in pieces]))
    return curves


def bowed(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    "Return `points`, or, as no one draws straight, two of them with a third near their middle."
    if len(points) != 2:
        return points
    along = points[1] - points[0]
    middle = points.mean(0) + rng.normal(0, 0.04) * along[::-1] * (1, -1)
    return np.stack([points[0], middle, points[1]])


_T = np.linspace(0, 1, 7)[:-1, None]
_CATMULL_ROM = np.hstack([-_T + 2 * _T**2 - _T**3, 2 - 5 * _T**2 + 3 * _T**3,
                          _T + 4 * _T**2 - 3 * _T**3, _T**3 - _T**2]) / 2


def smooth(points: np.ndarray) -> np.ndarray:
    "Return a Catmull-Rom spline through `points` `[k, 2]`, with six steps from each to the next."
    ends = [2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]]
    windows = sliding_window_view(np.concatenate(ends), 4, axis=0)  # [k - 1, 2, 4]
    return np.concatenate(
        [np.einsum("tp,kcp->ktc", _CATMULL_ROM, windows).reshape(-1, 2), points[-1:]])


def posed(
    curves: list[np.ndarray],
    rng: np.random.Generator,
    aspect: tuple[float, float] = (0.6, 1.05),  # least and most width for a height of 1
    slant: float = 0.18,  # deviation of the shear
    turn: float = 15,  # degrees to either side
) -> list[np.ndarray]:
    "Return `curves` made narrower or wider, slanted, more often to the right, and turned."
    angle = math.radians(rng.uniform(-turn, turn))
    shear = float(np.clip(rng.normal(-0.4, 1), -2, 2)) * slant
    cos, sin = math.cos(angle), math.sin(angle)
    wide = rng.uniform(*aspect)
    matrix = np.array([[cos, -sin], [sin, cos]]) @ np.array([[wide, shear], [0, 1]])
    return [curve @ matrix.T for curve in curves]


def drawn(
    curves: list[np.ndarray],  # in any unit
    rng: np.random.Generator,
    pen: tuple[float, float] = PEN,  # least and most width, part of the longer side
    filled: bool = False,  # whether the inside of the curves is ink, too
) -> np.ndarray:  # float32 `[h, w]`, 0 = paper to 1 = ink
    "Return `curves` drawn with a round pen that presses a little harder in some places."
    points = np.concatenate(curves)
    low, high = points.min(0), points.max(0)
    scale = FINE * TALL / max(*(high - low), 1e-6)
    width = FINE * TALL * rng.uniform(*pen)
    margin = math.ceil(width) + FINE
    image = Image.new("L", [FINE * math.ceil(side * scale / FINE) + 2 * margin
                            for side in (high - low)])
    draw = ImageDraw.Draw(image)
    for curve in curves:
        curve = (curve - low) * scale + margin
        if filled:
            draw.polygon(curve.ravel().tolist(), fill=255)
        pressed = width * np.linspace(*rng.uniform(0.8, 1.2, 2), len(curve))
        spots, radii = curve.tolist(), (pressed / 2).tolist()
        for i, ((x, y), r) in enumerate(zip(spots, radii, strict=True)):
            draw.ellipse((x - r, y - r, x + r, y + r), fill=255)
            if i:
                draw.line((*spots[i - 1], x, y), fill=255, width=round(2 * r))
    return np.asarray(image.reduce(FINE), np.float32) / 255


def redraw(
    digit: np.ndarray,  # `[28, 28]`, 0 = paper
    size: float,  # pixels of its longer side
    pen_width: float,  # in digit heights of `UNIT` pixels
) -> np.ndarray:  # float32 `[h, w]`
    """Return how deep in the ink each point of a digit is, as drawn with a pen; below 0 outside.

    The pen follows the middle of each stroke; what is much thicker than the strokes, as a filled
    loop, stays thicker.
    """
    zoom = size / max(10, *(side.stop - side.start
                            for side in inked_part(digit > 0.4 * digit.max())))
    side = round(30 * zoom)
    large = Image.fromarray(np.pad(digit, 1).astype(np.float32)).resize(
        (side, side), Image.Resampling.BICUBIC)
    large = gaussian_filter(np.asarray(large), 0.4 * zoom)
    shape = large > 0.4 * large.max()
    shape = np.pad(shape[inked_part(shape)], 5 * MARGIN)
    inside = distance_transform_edt(shape)
    middle = shape & (gaussian_laplace(inside, 1) < -0.4)  # the ridges, two to three pixels wide
    stroke = inside[middle].mean()
    # bounds that keep gaps and small loops
    radius = np.clip(pen_width * UNIT / 2, 0.3 * stroke, stroke + 0.4 * zoom)
    depth = np.maximum(inside - distance_transform_edt(~shape) + radius - 1.25 * stroke,
                       radius - 0.7 - distance_transform_edt(~middle))
    depth = gaussian_filter(depth.astype(np.float32), 1.2)
    return np.pad(depth, MARGIN)[tuple(slice(side.start, side.stop + 2 * MARGIN)
                                       for side in inked_part(depth > 0))]


def inked_part(mask: np.ndarray) -> tuple[slice, slice]:
    "Return the rows and the columns from the first to the last with something true."
    return find_objects(mask.astype(np.int8))[0]
