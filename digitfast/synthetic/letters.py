"""Letters, signs and scribbles as people draw them: strokes of a pen, never twice in the same places."""
import math
from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image, ImageDraw

# Stroke by stroke, parted by "/", on a grid of 10 × 10: a point is its x and its y, which points down. The pen goes
# smoothly through the points, and turns sharply where one has a "!". " | " parts the ways to write the same letter.
# O, o, I and l are left out: they are read as 0 and 1.
LETTERS = {
    "A": "09 40! 89/26 66 | 09 12 40 72 89/15 75 | 08 40! 89 65! 14 | 19 30 50 79/06 47 85",
    "C": "81 50 13 06 39 88 | 82 60 31 05 38 79 | 71 81! 60 22 05 28 59 87",
    "E": "80 10! 19! 89/14 64 | 10 19/00 80/14 75/19 89 | 71 30 12 24 54/24 06 19 49 88 | 80 21 05 29 89/15 75",
    "F": "80 10! 19/14 64 | 00 90/20 29/25 75 | 81 60 21 19/15 75",
    "H": "10 19/80 89/15 85 | 00 19/71 89/15 84 | 10 19/80 89/06 45 94",
    "J": "10 90/60 57 38 08 | 00 80/50 58 29 07 | 30 90/60 67 49 19 06",
    "K": "10 19/81 15! 89 | 10 19/80 16/34 89 | 20 18/81 44 15! 45 78 99",
    "L": "10 19! 89 | 20 17 19! 98 | 41 30 23 27 09 18 39 88 97 | 10 18! 88",
    "M": "09 10! 46! 80! 99 | 09 11 30 45! 61 80 99 | 09 00! 48! 90! 99 | 08 22 45 71! 89 | 09 10! 37! 70 87 99",
    "N": "19 10! 79! 70 | 09 11! 69! 80 | 19 10! 58 79! 71 90 | 08 10 36 69 80",
    "P": "10 19/10 60 72 55 15 | 29 20/01 40 81 73 45 25 | 19 11! 50 72 64 25",
    "Q": "40 12 06 39 77 82 40/55 99 | 50 11 05 38 77 82 50/45 78 98 | 30 02 06 38 76 72 30/34 56 99",
    "R": "10 19/10 60 72 54 15! 79 | 29 20/01 50 82 54 25! 58 89 | 19 10 60 72 55 25! 46 79",
    "T": "00 90/40 49 | 01 90/50 49 | 02 00! 90! 92/50 49",
    "U": "00 06 29 69 86 80 | 10 17 49 77 80! 89 98 | 00 20 16 39 67 80 76 89 99 | 00 07 39 78 81",
    "V": "00 49! 90 | 00 37 49 67 90 | 01 20 48! 80 91",
    "W": "00 29! 43! 69! 90 | 00 15 29 54! 69 86 90 | 00 06 29 47 43! 48 69 97 90 | 01 19! 41! 68! 90",
    "X": "00 89/80 09 | 00 22 67 89/80 09 | 00 33 44 36 09/81 53 44 56 89",
    "Y": "00 44! 80/44 49 | 00 45/90 45 39",
    "a": "13 41 63 69/64 34 07 29 66 | 72 41 13 06 28 57 72/71! 77 99 | 62 21 04 08 39 67 61! 68 89",
    "c": "82 51 23 06 38 79 97 | 72 73! 51 13 07 49 88",
    "d": "75 44 16 18 39 67 75/80 79 | 74 35 07 29 68 80! 78 99 | 65 34 07 29 66/60 69",
    "e": "15 75 73 41 13 06 28 59 87 | 06 45 73 51 13 07 39 88 | 04 85! 72 41 13 06 29 78",
    "f": "81 60 41 49/14 74 | 80 50 32 39/05 75 | 81 60 42 47 29/14 74",
    "h": "10 19/15 44 65 79 | 10 19/16 34 66 69 88",
    "i": "44 49/40 41 | 24 43! 47 69 88/40 51 | 34 38 59/31 30",
    "j": "54 57 39 18/50 51 | 34 54! 57 39 18 06/50 61",
    "k": "10 19/74 16! 79 | 10 19/16 54 74 65 16! 48 79 98 | 20 18/64 26/36 69",
    "m": "03 09/04 22 44 49/45 62 84 89 | 02 12 19! 14 32 43 49! 44 62 83 89 98 | 09 12 31 49! 52 71 89",
    "n": "12 19/14 42 74 79 | 02 12 19! 14 42 63 69 88 | 11 18/14 51 84 89",
    "p": "10 19/12 40 73 56 15 | 02 21 19! 13 51 73 46 15 | 21 29/13 51 83 66 26",
    "r": "11 19/15 41 81 93 | 02 21 29! 25 42 71 83 | 10 19/14 52 92",
    "t": "40 47 69 87/13 83 | 40 49/13 73 | 06 50! 37 59 87/14 84 | 50 38 49 68/04 83",
    "u": "01 06 39 76 71/71 78 89 | 01 21 17 39 67 71! 78 99 | 02 06 28 67 81! 88",
    "v": "00 49! 80 | 00 20 48! 70 91 | 00 38 49 68 80 91",
    "w": "00 29! 42! 69! 90 | 01 05 29 47 42! 48 69 96 81 92 | 00 28! 51! 68! 91",
    "x": "00 89/80 09 | 01 21 67 89/81 09 | 00 33 44 36 09/81 53 44 56 89",
}
SIGNS = {
    "%": "80 09/10 01 13 32 31 10/66 57 69 88 87 66", "#": "30 19/70 59/03 93/06 86", "+": "40 49/05 85",
    "=": "03 83/07 87", "*": "40 49/12 87/82 07", "<": "81 05! 89",
    "?": "02 20 60 73 45 46/48 49", "!": "40 46/48 49", "&": "89 22 30 51 43 06 29 59 85",
    "@": "64 43 35 46 64! 66 84 62 31 04 07 39 79", "π": "02 20 92/31 38/62 68 99", "Σ": "80 10! 45! 09! 89",
    "Ω": "09 39! 26 12 40 72 66 59! 89", "λ": "10 30 89/45 09", "Ψ": "01 04 46 84 81/40 49",
}
# Taken for 2, 5, 8, 6, 0, 9 and 4 by many, so these are rare, and written as no digit is.
UNSURE = {
    "Z": "00 80! 09! 89/25 65", "z": "01 80! 09! 88/16 75", "S": "72 81! 40 12 34 65 77 49 08 07",
    "s": "84 61 32 65 58 08", "B": "00 50 72 54 14! 54 86 69 09/10 19", "b": "10 19/16 44 75 67 38 18",
    "D": "00 50 83 86 59 09/20 29", "G": "81 50 13 06 38 79 86! 45/85 89", "q": "72 41 12 05 36 73/72 79 96",
    "g": "73 42 13 05 46 74 72/72 78 59 29 07 46 93", "y": "00 45/90 45 08 09",
}
SHAPES = {
    "cross": "00 99/90 09", "tick": "05 39! 90", "arrow": "05 95/62 95! 68",
    "double arrow": "05 95/62 95! 68/32 05! 38", "star": "40 19! 93! 03! 79! 40", "rays": "40 49/05 95/11 88/81 18",
    "smiley": "40 04 49 85 40/32 33/52 53/26 47 66", "crossed box": "00 90! 99! 09! 00/00 99/90 09",
    "window": "00 90! 99! 09! 00/40 49/05 95", "box": "01 91! 98! 08! 01", "triangle": "40 09! 89! 40",
    "heart": "49 03 10 30 43! 50 80 93 49", "house": "09 04! 40! 94! 99! 09/39 36! 56! 59",
    "target": "40 04 49 85 40/05 85/40 49", "kite": "40 15! 49! 75! 40/15 75",
    "envelope": "00 90! 97! 07! 00/00 45! 90", "grid": "30 39/60 69/03 93/06 96", "bracket": "80 10! 19! 89",
    "hook": "10 19! 89! 83", "dots": "01 02/41 42/81 82", "fish": "05 42 75 92! 98! 75 48 05",
    "ladder": "20 29/70 79/22 72/24 74/27 77", "stairs": "09 06! 36! 33! 63! 60! 90",
    "comb": "02 92/02 09/32 39/62 69/92 99", "chevrons": "00 45! 09/40 85! 49",
}

TALL = 90  # pixels of the longer side of a drawing
FINE = 2  # pixels to one of those while the pen draws
PEN = (0.05, 0.14)  # part of the longer side


@cache
def _strokes(way: str) -> list[tuple[np.ndarray, np.ndarray]]:
    "Points `[k, 2]` of each stroke, and the places of those where a smooth piece ends."
    strokes = []
    for stroke in way.split("/"):
        points = stroke.split()
        ends = [i for i, point in enumerate(points) if point.endswith("!") or i in (0, len(points) - 1)]
        strokes.append((np.array([[int(point[0]), int(point[1])] for point in points], float), np.array(ends)))
    return strokes


def write(
    ways: str,  # an entry of the tables above
    rng: np.random.Generator,
    jitter: float = 0.35,  # deviation of a point, in units of the grid
    careless: float = 0,  # probability that sharp turns become round
) -> list[np.ndarray]:  # a curve `[k, 2]` for each stroke
    "The strokes of one letter, in one of its ways, each point a little beside its place."
    ways = ways.split(" | ")
    curves, rounded = [], rng.random() < careless
    for points, ends in _strokes(ways[rng.integers(len(ways))]):
        points = points + rng.normal(0, jitter, points.shape)
        ends = ends[[0, -1]] if rounded else ends
        pieces = [points[a:b + 1] for a, b in zip(ends, ends[1:], strict=False)]
        curves.append(np.concatenate([smooth(bowed(piece, rng)) for piece in pieces]))
    return curves


def bowed(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    "`points`, with a third one near the middle where there are but two: no one draws straight."
    if len(points) != 2:
        return points
    along = points[1] - points[0]
    middle = points.mean(0) + rng.normal(0, 0.04) * along[::-1] * (1, -1)
    return np.stack([points[0], middle, points[1]])


_T = np.linspace(0, 1, 7)[:-1, None]
_CATMULL_ROM = np.hstack([-_T + 2 * _T**2 - _T**3, 2 - 5 * _T**2 + 3 * _T**3,
                          _T + 4 * _T**2 - 3 * _T**3, _T**3 - _T**2]) / 2


def smooth(points: np.ndarray) -> np.ndarray:
    "A Catmull-Rom spline through `points` `[k, 2]`, six steps from each to the next."
    ends = [2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]]
    windows = sliding_window_view(np.concatenate(ends), 4, axis=0)  # [k - 1, 2, 4]
    return np.concatenate([np.einsum("tp,kcp->ktc", _CATMULL_ROM, windows).reshape(-1, 2), points[-1:]])


def posed(
    curves: list[np.ndarray],
    rng: np.random.Generator,
    aspect: tuple[float, float] = (0.6, 1.05),  # width for a height of 1, least and most
    slant: float = 0.18,  # deviation of the shear
    turn: float = 15,  # degrees to either side
) -> list[np.ndarray]:
    "`curves` made narrower or wider, slanted, more often to the right, and turned."
    angle, shear = math.radians(rng.uniform(-turn, turn)), float(np.clip(rng.normal(-0.4, 1), -2, 2)) * slant
    cos, sin, wide = math.cos(angle), math.sin(angle), rng.uniform(*aspect)
    matrix = np.array([[cos, -sin], [sin, cos]]) @ np.array([[wide, shear], [0, 1]])
    return [curve @ matrix.T for curve in curves]


def drawn(
    curves: list[np.ndarray],  # in any unit
    rng: np.random.Generator,
    pen: tuple[float, float] = PEN,  # width, part of the longer side, least and most
    filled: bool = False,  # the inside of the curves too
) -> np.ndarray:  # float32 `[h, w]`, 0 = paper to 1 = ink
    "`curves` drawn with a round pen, which presses a little harder here than there."
    points = np.concatenate(curves)
    low, high = points.min(0), points.max(0)
    scale, width = FINE * TALL / max(*(high - low), 1e-6), FINE * TALL * rng.uniform(*pen)
    margin = math.ceil(width) + FINE
    image = Image.new("L", [FINE * math.ceil(side * scale / FINE) + 2 * margin for side in (high - low)])
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


def letter(rng: np.random.Generator) -> np.ndarray:
    "A handwritten letter, or a sign, as ink of 0 to 1. `UNSURE` letters come a tenth as often as others."
    kind = rng.random() * (1.15 + len(UNSURE) / len(LETTERS) / 10)
    table = LETTERS if kind < 1 else SIGNS if kind < 1.15 else UNSURE
    name = list(table)[rng.integers(len(table))]
    if table is LETTERS:
        careless = 0 if name == "L" else 0.2  # a round L is a bow
        return drawn(posed(write(table[name], rng, rng.uniform(0.15, 0.5), careless), rng), rng)
    return drawn(posed(write(table[name], rng, 0.2), rng, turn=8), rng)


def shape(rng: np.random.Generator) -> np.ndarray:
    "A sign such as people draw beside numbers, as ink of 0 to 1."
    names = list(SHAPES)
    curves = write(SHAPES[names[rng.integers(len(names))]], rng)
    return drawn(posed(curves, rng, aspect=(0.85, 1.3), slant=0.1), rng)


def scribble(rng: np.random.Generator) -> np.ndarray:
    "Lines that stand for nothing, as ink of 0 to 1: tangles, wanderings, zigzags, spirals, loops, hatching, blobs."
    return _SCRIBBLES[rng.integers(len(_SCRIBBLES))](rng)


def _tangle(rng: np.random.Generator) -> np.ndarray:
    "A line, round or sharp, that crosses itself again and again."
    points = rng.uniform(0, 9, (rng.integers(10, 18), 2))
    return drawn([smooth(points) if rng.random() < 0.7 else points], rng, (0.04, 0.1))


def _wandering(rng: np.random.Generator) -> np.ndarray:
    "A line that turns at every few steps and goes nowhere, open or over itself, sharp or round."
    n = int(rng.integers(12, 45))
    sharpest = rng.uniform(1.7, math.pi)  # radians that it turns by at most; less would be a bow
    heading = rng.uniform(0, 2 * math.pi) + np.cumsum(rng.uniform(-sharpest, sharpest, n))
    steps = rng.gamma(2, 1, n)[:, None] * np.stack([np.cos(heading), np.sin(heading)], axis=1)
    points = np.cumsum(steps, axis=0)
    points /= np.ptp(points, axis=0)  # a slim one would be a 1
    curve = smooth(points) if rng.random() < 0.4 else points
    return drawn(posed([curve], rng, (0.65, 1.5), 0.1), rng, (0.02, 0.1))


def _zigzag(rng: np.random.Generator) -> np.ndarray:
    "To and fro, at least five times; often enough and it is a smear."
    n = int(rng.choice([rng.integers(6, 10), rng.integers(10, 20)]))
    points = np.stack([np.linspace(0, rng.uniform(7, 14), n), np.arange(n) % 2 * 9.0], axis=1)
    points += rng.normal(0, 0.6, points.shape)
    return drawn(posed([smooth(points) if rng.random() < 0.6 else points], rng, (0.8, 1.2), 0.1, 180), rng, (0.04, 0.1))


def _spiral(rng: np.random.Generator) -> np.ndarray:
    "Two and a half turns or more: with fewer it is a 6 or a 9."
    t = np.linspace(0, 2 * math.pi * rng.uniform(2.5, 4.5), 90)
    along = t ** rng.uniform(0.7, 1.2) * np.exp(1j * (t * rng.choice([-1, 1]) + rng.uniform(0, 2 * math.pi)))
    return drawn(posed([np.stack([along.real, along.imag], axis=1)], rng, (0.7, 1.3)), rng, (0.04, 0.08))


def _loops(rng: np.random.Generator) -> np.ndarray:
    "A chain of three loops or more, as one tries a pen; or a long wave."
    t = np.linspace(0, 2 * math.pi * rng.uniform(3, 6), 120)
    wide = rng.choice([0, rng.uniform(1, 1.6)])
    curve = np.stack([t * rng.uniform(0.25, 0.6) + wide * np.cos(t), rng.uniform(1, 2.5) * np.sin(t)], axis=1)
    return drawn(posed([curve], rng, (0.8, 1.2), turn=40), rng, (0.04, 0.08))


def _parallels(rng: np.random.Generator) -> np.ndarray:
    "Two lines or more side by side, at times with others across."
    def lines(n: int) -> list[np.ndarray]:
        starts = np.stack([np.linspace(0, 9, n), np.zeros(n)], axis=1) + rng.normal(0, 0.3, (n, 2))
        ends = starts + rng.normal(0, 0.4, (n, 2)) + (0, rng.uniform(6, 11))
        return [smooth(bowed(np.stack(pair), rng)) for pair in zip(starts, ends, strict=True)]
    n = rng.integers(2, 7)
    curves = lines(n)
    if n > 2 and rng.random() < 0.5:
        curves += [curve[:, ::-1] for curve in lines(rng.integers(2, 6))]
    return drawn(posed(curves, rng, (0.8, 1.2), 0.1, 180), rng, (0.04, 0.09))


def _bar(rng: np.random.Generator) -> np.ndarray:
    "A long stroke that lies."
    return drawn(posed([smooth(bowed(np.array([[0, 0], [9, 0]]), rng))], rng, turn=20), rng, (0.06, 0.3))


def _flower(rng: np.random.Generator) -> np.ndarray:
    "A closed line with three bulges or more, often filled: a blot."
    t = np.linspace(0, 2 * math.pi, 60)
    bulges = rng.integers(3, 8)
    radius = 1 + rng.uniform(0.25, 0.6) * np.cos(bulges * t + rng.uniform(0, 6)) + rng.normal(0, 0.1) * np.sin(2 * t)
    curve = np.stack([radius * np.cos(t), radius * np.sin(t)], axis=1)
    return drawn(posed([curve], rng, (0.7, 1.3)), rng, (0.05, 0.1), filled=rng.random() < 0.4)


def _blob(rng: np.random.Generator) -> np.ndarray:
    "A filled round or angular patch."
    angles = np.arange(8) * math.pi / 4 + rng.uniform(-0.35, 0.35, 8)
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * rng.uniform(0.7, 1, (8, 1))
    points = np.concatenate([points, points[:1]])
    return drawn(posed([smooth(points) if rng.random() < 0.6 else points], rng, (0.8, 1.3)), rng, filled=True)


_SCRIBBLES = [*[_wandering] * 5, _tangle, _tangle, _zigzag, _zigzag, _spiral, _loops, _parallels, _parallels, _bar,
              _flower, _blob]
