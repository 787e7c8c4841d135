"""Ink → the pieces that it consists of."""
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # imports scipy.ndimage on first use, which takes longer than reading a digit

INKED = 0.3  # density from which pixels hang together
CORNERS = np.ones((3, 3))  # pixels that touch at their corners hang together, too
MAX_DIGIT_WIDTH = 1.7  # × the height of its line
MAX_HEIGHT = 2.5  # of a piece that belongs to the lines around it, × the typical height
MAX_LENGTH = 16  # of the stroke of a digit, × its width
MOST_PIECES = 1000  # of one picture, and parts that they are cut into; the largest are kept


@dataclass(frozen=True, eq=False)
class Piece:
    "Some ink and where it is, in pixels of the picture."
    left: int
    top: int
    ink: np.ndarray  # float32 `[height, width]`, 0 = paper to 1 = ink, without that of other pieces
    cut_from: int = 0  # a number for the connected ink that it was cut from; 0: it is not cut

    @property
    def height(self) -> int:
        return self.ink.shape[0]

    @property
    def width(self) -> int:
        return self.ink.shape[1]

    @property
    def right(self) -> int:
        return self.left + self.width

    @property
    def bottom(self) -> int:
        return self.top + self.height

    @property
    def middle(self) -> tuple[float, float]:
        return self.left + self.width / 2, self.top + self.height / 2


def box_of(
    pieces: Sequence[Piece],  # one or more
) -> tuple[int, int, int, int]:
    "Return left, top, right and bottom of all the pieces."
    boxes = ((p.left, p.top, p.right, p.bottom) for p in pieces)
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def join(
    pieces: Sequence[Piece],  # one or more
) -> Piece:
    "Return all the pieces as one."
    if len(pieces) == 1:
        return pieces[0]
    left, top, right, bottom = box_of(pieces)
    ink = np.zeros((bottom - top, right - left), np.float32)
    for p in pieces:
        place = ink[p.top - top:p.bottom - top, p.left - left:p.right - left]
        np.maximum(place, p.ink, out=place)
    return Piece(left, top, ink)


def find_pieces(
    density: np.ndarray,  # float32 `[h, w]`, 0 = paper to 1 = ink
    smallest: int = 9,  # pixels of a digit, with its rim; else it is noise, if nothing is larger
    least: float = 0.2,  # longer side of a piece, × the typical height
) -> list[Piece]:
    "Return the connected pieces of ink, but for specks, frames and the rim of the picture."
    labels, _ = scipy.ndimage.label(density > INKED, CORNERS)
    boxes = scipy.ndimage.find_objects(labels)
    sides = np.array([max(b[0].stop - b[0].start, b[1].stop - b[1].start) for b in boxes])
    order = np.argsort(-sides, kind="stable")[:MOST_PIECES]
    order = _in_few_layers(order, boxes, density.size)
    pieces = [_cut_out(density, labels, i, boxes[i]) for i in order if sides[i] >= 3]
    pieces = [p for p in pieces if not _is_frame(p, pieces)]
    if not pieces or max(max(p.height, p.width) for p in pieces) < smallest:
        return []
    inside = [p for p in pieces if not _is_at_edge(p, density.shape)] or pieces
    typical = typical_height(inside)
    has_edge = len(inside) < len(pieces)
    return [p for p in pieces if max(p.height, p.width) >= least * typical
            and not (has_edge and _is_margin(p, density.shape, typical))]


def _in_few_layers(
    order: np.ndarray,  # indices of boxes
    boxes: Sequence[tuple[slice, slice]],
    size: int,  # pixels of the picture
    most: int = 8,  # layers of boxes, all over the picture
) -> np.ndarray:
    "Return the smallest of the boxes in `order` that together cover the picture a few times only."
    areas = np.array([math.prod(side.stop - side.start for side in boxes[i]) for i in order], int)
    small_first = areas.argsort(kind="stable")
    return order[np.sort(small_first[areas[small_first].cumsum() <= most * size])]


def _cut_out(
    density: np.ndarray,
    labels: np.ndarray,
    i: int,  # number of the piece, from 0
    box: tuple[slice, slice],
) -> Piece:
    "Return a piece with the faint rim of its ink."
    rows, columns = (slice(max(0, b.start - 1), b.stop + 1) for b in box)
    own = labels[rows, columns]
    near = scipy.ndimage.binary_dilation(own == i + 1, CORNERS) & ((own == 0) | (own == i + 1))
    return Piece(columns.start, rows.start, np.where(near, density[rows, columns], 0))


def _is_frame(piece: Piece, pieces: Sequence[Piece]) -> bool:
    "Return whether a piece is a frame or what is left of a grid: thin lines around other pieces."
    if float(piece.ink.mean()) > 0.15:
        return False
    inside = [p for p in pieces
              if p.left > piece.left and p.right < piece.right and p.top > piece.top
              and p.bottom < piece.bottom and p.height > 0.05 * piece.height]
    return len(inside) >= 2


def _is_at_edge(piece: Piece, shape: tuple[int, int]) -> bool:
    return (piece.left <= 1 or piece.top <= 1
            or piece.right >= shape[1] - 1 or piece.bottom >= shape[0] - 1)


def _is_margin(piece: Piece, shape: tuple[int, int], typical: float) -> bool:
    "Return whether a piece is the rim of the picture, or comes in from there and is far too large."
    size = max(piece.height / MAX_HEIGHT, piece.width / (MAX_HEIGHT * MAX_DIGIT_WIDTH))
    if size > typical and _is_at_edge(piece, shape):
        return True
    rim = max(0.3 * typical, 0.015 * max(shape))
    return (piece.right <= rim or piece.bottom <= rim
            or piece.left >= shape[1] - rim or piece.top >= shape[0] - rim)


def typical_height(pieces: Sequence[Piece]) -> float:
    """Return the height that half of all strokes belong to pieces of less than.

    A piece counts by its height and by how many times its stroke is as long as wide, but for no
    more than a digit: so neither specks decide, nor a pen on the page, nor a word crossed out.
    """
    heights = np.array([max(p.height, p.width / MAX_DIGIT_WIDTH) for p in pieces])
    weights = heights * [min(_stroke_length(p), MAX_LENGTH) for p in pieces]
    order = heights.argsort()
    return float(heights[order][np.searchsorted(np.cumsum(weights[order]), weights.sum() / 2)])


def typical_width(
    shape: np.ndarray,  # bool `[h, w]`
) -> float:
    """Return the width that half of all strokes are narrower than, in pixels; 0 without ink.

    A piece counts by how many times it is as long as it is wide, but for no more than a digit, and
    a wide one for more than a thin one: so neither a patch of shadow decides, nor a ruled line, nor
    a hair beside a digit.
    """
    labels, n = scipy.ndimage.label(shape, CORNERS)
    if not n:
        return 0.0
    areas = np.bincount(labels.ravel(), minlength=n + 1)[1:]
    inside = scipy.ndimage.distance_transform_edt(np.pad(shape, 1))[1:-1, 1:-1]
    widths = 4 * np.bincount(labels.ravel(), inside.ravel(), n + 1)[1:] / areas - 1
    order = widths.argsort()
    weights = (np.minimum(areas / widths**2, MAX_LENGTH) * np.sqrt(widths))[order].cumsum()
    return float(widths[order][np.searchsorted(weights, weights[-1] / 2)])


def _stroke_length(piece: Piece) -> float:
    "Return how many times a stroke of the same area and circumference is as long as wide."
    shape = np.pad(piece.ink > INKED, 1)
    around = (np.count_nonzero(shape[1:] != shape[:-1])
              + np.count_nonzero(shape[:, 1:] != shape[:, :-1]))
    return around**2 / (4 * np.count_nonzero(shape))
