"""Pieces of ink → lines of writing, in reading order."""
import math
from collections.abc import Sequence

import numpy as np

from digitfast.reading.pieces import MAX_DIGIT_WIDTH, MAX_HEIGHT, Piece, box_of, typical_height


def text_lines(
    pieces: Sequence[Piece],
    least_height: float = 0.25,  # of a piece in a line of its own, × the typical height
) -> list[list[Piece]]:
    """Return the pieces in reading order: lines from top to bottom, each from left to right.

    A line may rise or fall. Pieces that are much larger than most, or smaller and not near one, are
    in lines of their own kind: titles, a pen on the page. A ring or a box is a line by itself.
    """
    if not pieces:
        return []
    rings = [p for p in pieces if any(_is_around(p, other) for other in pieces)]
    if rings:
        return text_lines([p for p in pieces if p not in rings]) + [[p] for p in rings]
    typical = typical_height(pieces)
    small = [p for p in pieces if p.height < 0.5 * typical]
    large = [p for p in pieces if p.height > MAX_HEIGHT * typical]
    tall = [p for p in pieces if 0.5 * typical <= p.height <= MAX_HEIGHT * typical]
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
        if min(_distance(p, piece) for p in near) < typical:
            near.append(piece)
        elif piece.height >= least_height * typical:
            alone.append(piece)
    for line in lines:
        line.sort(key=lambda p: p.left)
    lines += text_lines(large) + text_lines(alone)
    return sorted(lines,
                  key=lambda line: np.mean([p.middle[1] - slope * p.middle[0] for p in line]))


def _is_around(piece: Piece, other: Piece) -> bool:
    "Return whether `other`, which is no speck, is inside `piece` with paper on all sides."
    room = min(other.left - piece.left, other.top - piece.top,
               piece.right - other.right, piece.bottom - other.bottom)
    return room > 0.1 * piece.height and other.height > 0.2 * piece.height


def _slope(
    pieces: Sequence[Piece],
    steepest: float = 0.4,  # pixels per pixel
) -> float:
    "Return by how much lines fall to the right: the median over each piece and its neighbour."
    middles = np.array([piece.middle for piece in pieces]).reshape(-1, 2)
    slopes = []
    for piece, middle in zip(pieces, middles, strict=True):
        dx, dy = (middles - middle).T
        is_near = (dx > 0.3 * piece.height) & (dx < 2.5 * piece.height)
        is_near &= np.abs(dy) < 0.8 * piece.height
        if is_near.any():
            nearest = np.where(is_near, np.hypot(dx, dy), np.inf).argmin()
            slopes.append(dy[nearest] / dx[nearest])
    return float(np.clip(np.median(slopes), -steepest, steepest)) if slopes else 0.0


def _side_by_side(last: Piece, piece: Piece, slope: float) -> float:
    "Return the part of the lower one's height in which `last` is to the left of `piece`."
    fall = slope * (piece.middle[0] - last.middle[0])
    shared = min(last.bottom + fall, piece.bottom) - max(last.top + fall, piece.top)
    return shared / min(last.height, piece.height)


def _distance(one: Piece, other: Piece) -> float:
    "Return the pixels between the boxes of two pieces; three times as many up or down."
    across = max(one.left, other.left) - min(one.right, other.right)
    down = max(one.top, other.top) - min(one.bottom, other.bottom)
    return math.hypot(max(across, 0), 3 * max(down, 0))


def may_be_one(
    upper: Sequence[Piece],  # a line
    lower: Sequence[Piece],  # the next one
    most_gap: float = 0.1,  # in the stroke of a digit, × its height
    least_part: float = 0.25,  # of a digit, × its height: no line below it
) -> bool:
    "Return whether two lines may be one digit whose stroke is broken, by where they are."
    lefts, tops, rights, bottoms = zip(box_of(upper), box_of(lower), strict=True)
    height = max(bottoms) - min(tops)
    is_narrow = max(rights) - min(lefts) <= MAX_DIGIT_WIDTH * line_height([*upper, *lower])
    no_underline = min(bottoms[0] - tops[0], bottoms[1] - tops[1]) >= least_part * height
    gap = max(tops[1] - bottoms[0], max(lefts) - min(rights))
    return is_narrow and no_underline and gap <= most_gap * height


def line_height(
    line: Sequence[Piece],
) -> float:
    "Return the mean height of the taller pieces of a line, as they were before they were cut."
    spans: dict[tuple[int, int], tuple[int, int]] = {}
    for i, piece in enumerate(line):
        which = (piece.cut_from, 0 if piece.cut_from else i)
        top, bottom = spans.get(which, (piece.top, piece.bottom))
        spans[which] = min(top, piece.top), max(bottom, piece.bottom)
    heights = sorted(bottom - top for top, bottom in spans.values())
    return float(np.mean(heights[len(heights) // 2:]))
