"""Ink → the pieces it consists of, in lines, and the ways in which they may make up digits."""
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy  # scipy.ndimage comes when it is first used: it takes longer than an answer

INKED = 0.3  # density from which pixels hang together
WIDE = 1.7  # of a digit's width at most, as a part of its line's height
STEPS = np.array([0, -1, 1], np.int8)  # columns that a cut may go from a row to the next
ASIDE = 0.05  # cost of a step aside of a cut, in pixels of ink
MOST_CUT = 0.45  # ink that a cut may go through, as a part of the line's height
SMALLEST = 9  # pixels of a digit, with its rim; what is smaller is noise where nothing is larger
MOST_PARTS = 8  # of one digit: what a pen has left in pieces, and cuts too many
STEEPEST = 0.4  # fall of a line, in pixels to a pixel
MOST_PIECES = 1000  # of one picture, and parts that they are cut into; the largest are kept
LONGEST = 16  # stroke of a digit, in its widths
LARGE, TINY = 2.5, 0.25  # heights of pieces that are no part of the lines around them, in the typical one
BROKEN, LEAST_PART = 0.1, 0.25  # gap in the stroke of a digit at most, and its parts at least, in heights of the digit
DEEPEST = 8  # how many pieces may lie over each other by their boxes, all over the picture; the smallest are kept


@dataclass(frozen=True, eq=False)
class Piece:
    "Some ink and where it is, in pixels of the picture."
    left: int
    top: int
    ink: np.ndarray  # float32 `[height, width]`, 0 = paper to 1 = ink, without that of other pieces
    cut_from: int = 0  # a number of its own for the connected ink that it was cut from; 0: it is not cut

    @property
    def height(self) -> int: return self.ink.shape[0]

    @property
    def width(self) -> int: return self.ink.shape[1]

    @property
    def right(self) -> int: return self.left + self.width

    @property
    def bottom(self) -> int: return self.top + self.height

    @property
    def middle(self) -> tuple[float, float]: return self.left + self.width / 2, self.top + self.height / 2


def box_of(
    pieces: Sequence[Piece],  # one or more
) -> tuple[int, int, int, int]:
    "Left, top, right and bottom of all of `pieces`."
    lefts, tops, rights, bottoms = zip(*((p.left, p.top, p.right, p.bottom) for p in pieces), strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def join(
    pieces: Sequence[Piece],  # one or more
) -> Piece:
    "All of `pieces` as one."
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
) -> list[Piece]:
    "The connected pieces of ink, but for specks."
    labels, n = scipy.ndimage.label(density > INKED, np.ones((3, 3)))
    boxes = scipy.ndimage.find_objects(labels)
    sides = np.array([max(b[0].stop - b[0].start, b[1].stop - b[1].start) for b in boxes])
    order = np.argsort(-sides, kind="stable")[:MOST_PIECES]
    order = _in_few_layers(order, boxes, density.size)
    pieces = [_cut_out(density, labels, i, boxes[i]) for i in order if sides[i] >= 3]
    pieces = [p for p in pieces if not _is_frame(p, pieces)]
    if not pieces or max(max(p.height, p.width) for p in pieces) < SMALLEST:
        return []
    inside = [p for p in pieces if not _at_edge(p, density.shape)] or pieces
    typical = _typical_height(inside)
    return [p for p in pieces if max(p.height, p.width) >= 0.15 * typical]


def _in_few_layers(order: np.ndarray, boxes: Sequence[tuple[slice, slice]], size: int) -> np.ndarray:
    "Those of `order`, in that order, whose boxes cover a picture of `size` pixels no more than `DEEPEST` times."
    areas = np.array([math.prod(side.stop - side.start for side in boxes[i]) for i in order], int)
    small_first = areas.argsort(kind="stable")
    return order[np.sort(small_first[areas[small_first].cumsum() <= DEEPEST * size])]


def _cut_out(density: np.ndarray, labels: np.ndarray, i: int, box: tuple[slice, slice]) -> Piece:
    "Piece number `i`, counted from 0, with the faint rim of its ink."
    rows, columns = (slice(max(0, b.start - 1), b.stop + 1) for b in box)
    own = labels[rows, columns]
    near = scipy.ndimage.binary_dilation(own == i + 1, np.ones((3, 3))) & ((own == 0) | (own == i + 1))
    return Piece(columns.start, rows.start, np.where(near, density[rows, columns], 0))


def _is_frame(piece: Piece, pieces: Sequence[Piece]) -> bool:
    "Whether `piece` is a frame or what is left of a grid: thin lines around other pieces."
    if float(piece.ink.mean()) > 0.15:
        return False
    inside = [p for p in pieces if p.left > piece.left and p.right < piece.right and p.top > piece.top
              and p.bottom < piece.bottom and p.height > 0.05 * piece.height]
    return len(inside) >= 2


def _at_edge(piece: Piece, shape: tuple[int, int]) -> bool:
    return piece.left <= 1 or piece.top <= 1 or piece.right >= shape[1] - 1 or piece.bottom >= shape[0] - 1


def _typical_height(pieces: Sequence[Piece]) -> float:
    """The height that half of all strokes belong to pieces of less than.

    A piece counts by how many times its stroke is as long as wide, and for no more than a digit: so that neither a pen
    on the page nor a word crossed out decides.
    """
    heights = np.array([max(p.height, p.width / WIDE) for p in pieces])
    lengths = np.array([min(_stroke_length(p), LONGEST) for p in pieces])
    order = heights.argsort()
    return float(heights[order][np.searchsorted(np.cumsum(lengths[order]), lengths.sum() / 2)])


def _stroke_length(piece: Piece) -> float:
    "How many times a stroke of the same area and circumference is as long as wide."
    shape = np.pad(piece.ink > INKED, 1)
    around = np.count_nonzero(shape[1:] != shape[:-1]) + np.count_nonzero(shape[:, 1:] != shape[:, :-1])
    return around**2 / (4 * np.count_nonzero(shape))


def text_lines(
    pieces: Sequence[Piece],
) -> list[list[Piece]]:
    """`pieces` in reading order: lines from top to bottom, each from left to right. A line may rise or fall.

    What is much larger than most, or smaller and not near it, is in lines of its own kind: titles, a pen on the page.
    """
    if not pieces:
        return []
    typical = _typical_height(pieces)
    small = [p for p in pieces if p.height < 0.5 * typical]
    large = [p for p in pieces if p.height > LARGE * typical]
    tall = [p for p in pieces if 0.5 * typical <= p.height <= LARGE * typical]
    if not tall:
        tall, small, large = pieces, [], []
    slope = _slope(tall)
    lines: list[list[Piece]] = []
    for piece in sorted(tall, key=lambda p: p.left):
        beside = [max(_side_by_side(last, piece, slope) for last in line[-3:]) for line in lines]
        if max(beside, default=0) < 0.4:
            lines.append([piece])
        else:
            lines[int(np.argmax(beside))].append(piece)
    alone = []
    for piece in sorted(small, key=lambda p: p.left):
        near = min(lines, key=lambda line: min(_distance(p, piece) for p in line))
        if min(_distance(p, piece) for p in near) < 0.5 * typical:
            near.append(piece)
        elif piece.height >= TINY * typical:
            alone.append(piece)
    for line in lines:
        line.sort(key=lambda p: p.left)
    lines += text_lines(large) + text_lines(alone)
    return sorted(lines, key=lambda line: np.mean([p.middle[1] - slope * p.middle[0] for p in line]))


def _slope(pieces: Sequence[Piece]) -> float:
    "By how much lines fall to the right: the median over each piece and its nearest neighbour there."
    middles, slopes = np.array([piece.middle for piece in pieces]).reshape(-1, 2), []
    for piece, middle in zip(pieces, middles, strict=True):
        dx, dy = (middles - middle).T
        near = (dx > 0.3 * piece.height) & (dx < 2.5 * piece.height) & (np.abs(dy) < 0.8 * piece.height)
        if near.any():
            nearest = np.where(near, np.hypot(dx, dy), np.inf).argmin()
            slopes.append(dy[nearest] / dx[nearest])
    return float(np.clip(np.median(slopes), -STEEPEST, STEEPEST)) if slopes else 0.0


def _side_by_side(last: Piece, piece: Piece, slope: float) -> float:
    "The part of the lower one's height in which `piece` lies beside `last`, to its left."
    fall = slope * (piece.middle[0] - last.middle[0])
    shared = min(last.bottom + fall, piece.bottom) - max(last.top + fall, piece.top)
    return shared / min(last.height, piece.height)


def _distance(one: Piece, other: Piece) -> float:
    "Pixels between the boxes of two pieces."
    across = max(one.left, other.left) - min(one.right, other.right)
    down = max(one.top, other.top) - min(one.bottom, other.bottom)
    return math.hypot(max(across, 0), max(down, 0))


def may_be_one(
    upper: Sequence[Piece],  # a line
    lower: Sequence[Piece],  # the next one
) -> bool:
    "Whether two lines may be one digit whose stroke is broken, by where they are."
    lefts, tops, rights, bottoms = zip(box_of(upper), box_of(lower), strict=True)
    height = max(bottoms) - min(tops)
    narrow = max(rights) - min(lefts) <= WIDE * line_height([*upper, *lower])
    no_underline = min(bottoms[0] - tops[0], bottoms[1] - tops[1]) >= LEAST_PART * height
    return narrow and no_underline and max(tops[1] - bottoms[0], max(lefts) - min(rights)) <= BROKEN * height


def line_height(
    line: Sequence[Piece],
) -> float:
    "The height of the digits of a line: of its taller pieces, as they were before they were cut, in the mean."
    spans: dict[tuple[int, int], tuple[int, int]] = {}
    for i, piece in enumerate(line):
        which = (piece.cut_from, 0 if piece.cut_from else i)
        top, bottom = spans.get(which, (piece.top, piece.bottom))
        spans[which] = min(top, piece.top), max(bottom, piece.bottom)
    heights = sorted(bottom - top for top, bottom in spans.values())
    return float(np.mean(heights[len(heights) // 2:]))


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
    parts = []
    beside = [np.full(piece.height, -1), *paths, np.full(piece.height, piece.width - 1)]
    for before, behind in zip(beside, beside[1:], strict=False):
        start, stop = before.min() + 1, behind.max() + 1
        place = np.arange(start, stop)
        own = (place > before[:, None]) & (place <= behind[:, None])
        ink = np.where(own, piece.ink[:, start:stop], 0)
        columns, rows = np.flatnonzero((ink > INKED).any(0)), np.flatnonzero((ink > INKED).any(1))
        if len(columns):
            left, right, top, bottom = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
            ink = ink[top:bottom, left:right]
            parts.append(Piece(piece.left + int(start + left), piece.top + int(top), ink, number))
    return sorted(parts, key=lambda p: p.left)


def _paths_of_little_ink(ink: np.ndarray, height: float) -> list[np.ndarray]:
    "Paths from the top of `ink` to its bottom, a column for each row, from left to right: where digits may touch."
    width = ink.shape[1]
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
    kept: dict[float, np.ndarray] = {}  # paths by the column that they go through in the mean
    for path, middle in zip(paths.T, paths.mean(0).tolist(), strict=True):
        if len(kept) >= 1 + width / (0.3 * height):
            break
        if margin < middle < width - margin and all(abs(middle - m) > 0.1 * height for m in kept):
            kept[middle] = path
    return [path for _, path in sorted(kept.items())]


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
