"""A line of writing → the ways in which its pieces may be digits: joined, and cut where digits touch."""
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import scipy  # imports scipy.ndimage on first use, which takes longer than reading a digit

from digitfast.data.mnist_form import stroke_width
from digitfast.reading.lines import line_height
from digitfast.reading.pieces import INKED, WIDE, Piece

STEPS = np.array([0, -1, 1], np.int8)  # columns that a cut may go from a row to the next
ASIDE = 0.05  # cost of a step aside of a cut, in pixels of ink
INSIDE = 0.3  # cost of paper that is enclosed by ink, as in a zero
MOST_CUT = 0.45  # ink that a cut may go through, as a part of the line's height
MOST_PARTS = 8  # of one digit: what a pen has left in pieces, and cuts too many


def cut_touching(
    line: Sequence[Piece],  # from left to right
) -> list[Piece]:
    "`line` with wide pieces cut where digits may touch: in more places than needed."
    height = line_height(line)
    parts: list[Piece] = []
    for number, piece in enumerate(line, 1):
        parts += _cut(piece, min(height, 1.2 * piece.height), number) if _may_be_several(piece, height) else [piece]
    return parts


def _may_be_several(piece: Piece, height: float) -> bool:
    return piece.width > 0.7 * height and piece.height > 0.5 * height  # not the bar of a 5


def _cut(piece: Piece, height: float, number: int) -> list[Piece]:
    "`piece` in parts, cut from top to bottom along paths of little ink."
    paths = _paths_of_little_ink(piece.ink, height)
    if not paths:
        return [piece]
    stroke = round(min(stroke_width(piece.ink > INKED), 0.15 * height))
    parts = []
    beside = [np.full(piece.height, -1), *paths, np.full(piece.height, piece.width - 1)]
    for before, behind in pairwise(beside):
        before, behind = before - _shared(piece.ink, before, stroke), behind + _shared(piece.ink, behind, stroke)
        start, stop = max(0, before.min() + 1), min(piece.width, behind.max() + 1)
        place = np.arange(start, stop)
        own = (place > before[:, None]) & (place <= behind[:, None])
        ink = np.where(own, piece.ink[:, start:stop], 0)
        columns, rows = np.flatnonzero((ink > INKED).any(0)), np.flatnonzero((ink > INKED).any(1))
        if len(columns):
            left, right, top, bottom = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
            ink = ink[top:bottom, left:right]
            parts.append(Piece(piece.left + int(start + left), piece.top + int(top), ink, number))
    return sorted(parts, key=lambda p: p.left)


def _shared(ink: np.ndarray, path: np.ndarray, stroke: int) -> np.ndarray:
    "For each row the columns of ink beside an upright cut that belong to both sides: round digits share a stroke."
    is_upright = path[0] >= 0 and np.ptp(path) == 0
    return stroke * is_upright * (ink[np.arange(len(ink)), path.clip(0)] > INKED)


def _paths_of_little_ink(ink: np.ndarray, height: float) -> list[np.ndarray]:
    "Paths from the top of `ink` to its bottom, a column for each row, from left to right: where digits may touch."
    width = ink.shape[1]
    inside = scipy.ndimage.binary_fill_holes(ink > INKED) & (ink <= INKED)
    ink = ink + INSIDE * inside
    around, steps = np.full(width + 2, np.inf, np.float32), np.zeros(ink.shape, np.int8)
    total = around[1:-1]  # ink on the best way to each pixel of a row
    total[:] = ink[0]
    for row in range(1, len(ink)):  # from above, straight or by one column to a side
        ways = np.stack([total, around[:-2] + ASIDE, around[2:] + ASIDE])
        steps[row] = STEPS[ways.argmin(0)]
        total[:] = ways.min(0) + ink[row]
    ends = np.argsort(total, kind="stable")
    ends = ends[total[ends] <= MOST_CUT * height]
    paths = np.empty((len(ink), len(ends)), int)
    for row in range(len(ink) - 1, -1, -1):
        paths[row] = ends
        ends = ends + steps[row, ends]
    margin = 0.15 * height
    # paths by the column that they go through in the mean
    kept: dict[float, np.ndarray] = {column: np.full(len(ink), column) for column in _notches(ink > INKED, height)}
    for path, middle in zip(paths.T, paths.mean(0).tolist(), strict=True):
        if len(kept) >= 2 + width / (0.3 * height):
            break
        if margin < middle < width - margin and all(abs(middle - m) > 0.1 * height for m in kept):
            kept[middle] = path
    return [path for _, path in sorted(kept.items())]


def _notches(shape: np.ndarray, height: float) -> list[int]:
    "Columns where ink is notched from above and from below: where round digits touch or overlap."
    above = np.where(shape.any(0), shape.argmax(0), 0)
    below = np.where(shape.any(0), shape[::-1].argmax(0), 0)
    depth = np.minimum(above, below).astype(float)
    depth = scipy.ndimage.uniform_filter1d(depth, 3)
    near = max(3, round(0.3 * height)) | 1
    is_deepest = (depth == scipy.ndimage.maximum_filter1d(depth, near)) & (depth >= 0.12 * height)
    margin = round(0.2 * height)
    is_deepest[:margin] = is_deepest[max(0, len(is_deepest) - margin):] = False
    labels, n = scipy.ndimage.label(is_deepest)
    return [round(place) for (place,) in scipy.ndimage.center_of_mass(is_deepest, labels, range(1, n + 1))]


def candidates(
    parts: Sequence[Piece],  # of one line, from left to right
) -> list[tuple[int, int]]:
    "Runs `start, stop` of parts that may be one digit by their size; each part, and each piece that was cut, is one."
    height = line_height(parts) if parts else 0
    cut = set(cut_pieces(parts))
    found = []
    for start in range(len(parts)):
        for stop in range(start + 1, min(len(parts), start + MOST_PARTS) + 1):
            left = min(p.left for p in parts[start:stop])
            right = max(p.right for p in parts[start:stop])
            if stop == start + 1 or right - left <= WIDE * height:
                found.append((start, stop))
    return found + sorted(cut.difference(found))


def cut_pieces(
    parts: Sequence[Piece],  # of one line, from left to right
) -> list[tuple[int, int]]:
    "Runs `start, stop` of parts that one piece was cut into, all of them."
    starts = [i for i, part in enumerate(parts) if not i or not 0 < part.cut_from == parts[i - 1].cut_from]
    return [(start, stop) for start, stop in pairwise([*starts, len(parts)]) if stop > start + 1]
