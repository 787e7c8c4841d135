"""A line of writing → the ways in which its pieces may be digits: joined, and cut apart."""
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import scipy  # imports scipy.ndimage on first use, which takes longer than reading a digit

from digitfast.data.mnist_form import stroke_width
from digitfast.reading.lines import line_height
from digitfast.reading.pieces import INKED, MAX_DIGIT_WIDTH, Piece

MOST_PARTS = 8  # of one digit: what a pen has left in pieces, and cuts too many


def cut_touching(
    line: Sequence[Piece],  # from left to right
) -> list[Piece]:
    "Return the line with wide pieces cut where digits may touch: in more places than needed."
    height = line_height(line)
    parts: list[Piece] = []
    for number, piece in enumerate(line, 1):
        may_be_several = piece.width > 0.7 * height and piece.height > 0.5 * height  # no bar of a 5
        parts += _cut(piece, min(height, 1.2 * piece.height), number) if may_be_several else [piece]
    return parts


def _cut(
    piece: Piece,
    height: float,  # of a digit
    number: int,  # of the piece, for its parts
) -> list[Piece]:
    "Return the parts of a piece, cut from top to bottom along seams of little ink."
    seams = _seams(piece.ink, height)
    if not seams:
        return [piece]
    stroke = round(min(stroke_width(piece.ink > INKED), 0.15 * height))
    parts = []
    ends = [np.full(piece.height, -1), *seams, np.full(piece.height, piece.width - 1)]
    for before, after in pairwise(ends):
        before = before - _shared(piece.ink[:, ::-1], piece.width - 1 - before, stroke)
        after = after + _shared(piece.ink, after, stroke)
        start, stop = max(0, before.min() + 1), min(piece.width, after.max() + 1)
        if start >= stop:  # two seams are one
            continue
        column = np.arange(start, stop)
        is_own = (column > before[:, None]) & (column <= after[:, None])
        ink = np.where(is_own, piece.ink[:, start:stop], 0)
        found = scipy.ndimage.find_objects((ink > INKED).astype(np.int8))
        if found:
            rows, columns = found[0]
            parts.append(Piece(piece.left + int(start + columns.start), piece.top + rows.start,
                               ink[rows, columns], number))
    return sorted(parts, key=lambda p: p.left)


def _shared(ink: np.ndarray, seam: np.ndarray, stroke: int) -> np.ndarray:
    """Return for each row how much of the ink to the right of an upright seam is the left side's.

    Round digits that touch share a stroke: each has the ink on the seam to the width of a stroke.
    """
    shared = np.zeros(len(ink), int)
    if 0 <= seam[0] < ink.shape[1] - 1 and np.ptp(seam) == 0:
        is_inked = ink > INKED
        for row in np.flatnonzero(is_inked[:, seam[0]]):
            left = np.argmin(is_inked[row, seam[0]::-1]) or seam[0] + 1  # ink up to the seam
            right = np.argmin(is_inked[row, seam[0]:]) or ink.shape[1] - seam[0]
            shared[row] = min(max(0, stroke - left), right - 1)
    return shared


def _seams(
    ink: np.ndarray,  # float32 `[h, w]`
    height: float,  # of a digit
    aside: float = 0.05,  # cost of a step to a side, in pixels of ink
    enclosed: float = 0.3,  # cost of paper that is enclosed by ink, as in a zero
    most_ink: float = 0.45,  # on a seam, × height
    most_per_height: float = 3.3,  # seams
) -> list[np.ndarray]:
    """Return seams from the top of `ink` to its bottom, a column for each row, from left to right.

    Those are the notches, and the seams of least ink by dynamic programming, as in seam carving
    (Avidan and Shamir, 2007).
    """
    width = ink.shape[1]
    is_enclosed = scipy.ndimage.binary_fill_holes(ink > INKED) & (ink <= INKED)
    seams, totals = _all_seams(ink + enclosed * is_enclosed, aside)
    order = np.argsort(totals, kind="stable")
    order = order[totals[order] <= most_ink * height]
    margin = 0.15 * height
    # seams by the mean of their columns
    kept: dict[float, np.ndarray] = {column: np.full(len(ink), column)
                                     for column in _notches(ink > INKED, height)}
    for seam in seams.T[order]:
        middle = float(seam.mean())
        if len(kept) >= 2 + most_per_height * width / height:
            break
        if margin < middle < width - margin and all(abs(middle - m) > 0.1 * height for m in kept):
            kept[middle] = seam
    return [seam for _, seam in sorted(kept.items())]


def _all_seams(
    cost: np.ndarray,  # float `[h, w]` of each pixel
    aside: float,  # cost of a step to a side
) -> tuple[np.ndarray, np.ndarray]:
    "Return the cheapest seam to each pixel of the last row, as columns `[h, w]`, and its cost."
    height, width = cost.shape
    around = np.full(width + 2, np.inf, np.float32)
    total = around[1:-1]  # cost of the best way to each pixel of a row
    total[:] = cost[0]
    steps = np.zeros(cost.shape, np.int8)
    for row in range(1, height):
        ways = np.stack([total, around[:-2] + aside, around[2:] + aside])
        steps[row] = np.array([0, -1, 1], np.int8)[ways.argmin(0)]
        total[:] = ways.min(0) + cost[row]
    seams = np.empty(cost.shape, int)
    columns = np.arange(width)
    for row in range(height - 1, -1, -1):
        seams[row] = columns
        columns = columns + steps[row, columns]
    return seams, total


def _notches(
    shape: np.ndarray,  # bool `[h, w]`
    height: float,  # of a digit
    least_depth: float = 0.12,  # × height
) -> list[int]:
    "Return columns where ink is notched from above and from below: where round digits touch."
    is_inked = shape.any(0)
    above = np.where(is_inked, shape.argmax(0), 0)
    below = np.where(is_inked, shape[::-1].argmax(0), 0)
    depth = scipy.ndimage.uniform_filter1d(np.minimum(above, below).astype(float), 3)
    near = max(3, round(0.3 * height)) | 1
    is_deepest = depth == scipy.ndimage.maximum_filter1d(depth, near)
    is_deepest &= depth >= least_depth * height
    margin = round(0.2 * height)
    is_deepest[:margin] = is_deepest[max(0, len(is_deepest) - margin):] = False
    labels, n = scipy.ndimage.label(is_deepest)
    return [round(column) for (column,) in
            scipy.ndimage.center_of_mass(is_deepest, labels, range(1, n + 1))]


def candidates(
    parts: Sequence[Piece],  # of one line, from left to right
) -> list[tuple[int, int]]:
    """Return runs `start, stop` of parts that may be one digit by their size.

    Each part is one, and so is each piece that was cut.
    """
    height = line_height(parts) if parts else 0
    cut = set(cut_pieces(parts))
    found = []
    for start in range(len(parts)):
        for stop in range(start + 1, min(len(parts), start + MOST_PARTS) + 1):
            left = min(p.left for p in parts[start:stop])
            right = max(p.right for p in parts[start:stop])
            if stop == start + 1 or right - left <= MAX_DIGIT_WIDTH * height:
                found.append((start, stop))
    return found + sorted(cut.difference(found))


def cut_pieces(
    parts: Sequence[Piece],  # of one line, from left to right
) -> list[tuple[int, int]]:
    "Return runs `start, stop` of all the parts that one piece was cut into."
    starts = [i for i, part in enumerate(parts)
              if not i or not 0 < part.cut_from == parts[i - 1].cut_from]
    runs = pairwise([*starts, len(parts)])
    return [(start, stop) for start, stop in runs if stop > start + 1]
