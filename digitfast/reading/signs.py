"""The signs between the digits of a line: points, commas, apostrophes, minus, colons, slashes."""
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # imports scipy.ndimage on first use, which takes longer than reading a digit

from digitfast.reading.pieces import CORNERS, INKED

Box = tuple[int, int, int, int]  # left, top, right and bottom, in pixels


@dataclass(frozen=True, kw_only=True)
class Sign:
    "A mark beside digits that is none: one of . , ' - : /"
    text: str
    box: Box  # in pixels of the picture


def find_signs(
    density: np.ndarray,  # float32 `[h, w]`, 0 = paper to 1 = ink
    lines: Sequence[Sequence[Box]],  # boxes of the digits of each line, from left to right
) -> list[list[Sign]]:
    """Return the signs of each line, from left to right.

    A sign is told by its size and place alone: a point is as wide as high and stands on the line, a
    comma goes below it, an apostrophe is near the top, a minus sign is wide and in the middle, and
    a colon is two points, one above the other. A line with more of them than digits has texture or
    other writing, and no signs.
    """
    marks = _small_marks(density, lines)
    found = []
    for boxes in lines:
        own = [sign for mark in marks if (sign := _sign(mark, boxes))]
        own = _with_colons(sorted(own, key=lambda sign: sign.box))
        found.append(own if len(own) <= len(boxes) else [])
    return found


def _small_marks(density: np.ndarray, lines: Sequence[Sequence[Box]]) -> list[Box]:
    "Return the boxes of connected ink that is no part of a digit."
    labels, _ = scipy.ndimage.label(density > INKED, CORNERS)
    digits = np.array([box for boxes in lines for box in boxes]).reshape(-1, 4)
    marks = []
    for rows, columns in scipy.ndimage.find_objects(labels):
        mark = np.array([columns.start, rows.start, columns.stop, rows.stop])
        shared = np.minimum(digits[:, 2:], mark[2:]) - np.maximum(digits[:, :2], mark[:2])
        inside = shared.clip(0).prod(1).max(initial=0)
        if inside < 0.5 * (mark[2:] - mark[:2]).prod():
            marks.append(tuple(mark.tolist()))
    return marks


def _sign(mark: Box, boxes: Sequence[Box]) -> Sign | None:
    "Return what a mark is beside the nearest digit of a line; None if it is no sign of that line."
    left, top, right, bottom = mark
    gaps = [max(box[0] - right, left - box[2], 0) for box in boxes]
    nearest = boxes[int(np.argmin(gaps))]
    height = nearest[3] - nearest[1]
    tallest = float(np.median([box[3] - box[1] for box in boxes]))
    if min(gaps) > 0.8 * tallest or height < 0.5 * tallest:
        return None
    w, h = (right - left) / height, (bottom - top) / height
    middle = ((top + bottom) / 2 - nearest[1]) / height  # 0 at the top of the digit, 1 at its foot
    if max(w, h) < 0.08 or min(w, h) < 0.03 or not -0.15 < middle < 1.35:
        return None
    if w > 1.6 * h and 0.2 < w < 0.9 and 0.25 < middle < 0.8:
        return Sign(text="-", box=mark)
    if max(w, h) > 0.45 or w > 0.3:
        return None
    if middle > 0.7:
        goes_below = bottom > nearest[3] + 0.1 * height
        return Sign(text="," if goes_below else ".", box=mark)
    return Sign(text="'" if middle < 0.25 else ".", box=mark)


def is_slash(
    box: Box,  # of a mark that is read as a 1
    others: Sequence[Box],  # of the other digits of its line
) -> bool:
    "Return whether a mark between digits is a slash: taller than they are, and far from upright."
    left, top, right, bottom = box
    height = bottom - top
    is_between = any(b[0] < left for b in others) and any(b[2] > right for b in others)
    return (is_between and right - left > 0.55 * height
            and height > 1.15 * float(np.median([b[3] - b[1] for b in others])))


def _with_colons(signs: Sequence[Sign]) -> list[Sign]:
    "Return the signs of a line with two points, one above the other, as one colon."
    found: list[Sign] = []
    for sign in signs:
        left, top, right, bottom = sign.box
        if found and sign.text in ".," and found[-1].text in ".,'":
            other = found[-1].box
            if left < other[2] + (right - left) / 2:
                box = (other[0], min(top, other[1]), max(right, other[2]), max(bottom, other[3]))
                found[-1] = Sign(text=":", box=box)
                continue
        found.append(sign)
    return found
