"""A picture → the numbers that are written in it."""
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import compress
from numbers import Integral

import numpy as np

from digitfast.data.pictures import cut_region, read_picture
from digitfast.errors import BadSetting
from digitfast.inference.predictor import Predictor, check_predictor
from digitfast.reading.cuts import cut_touching
from digitfast.reading.ink import SMALL, Ink, even_ink, find_inks
from digitfast.reading.line_search import digit_of, network_form, read_field, read_line
from digitfast.reading.lines import may_be_one, text_lines
from digitfast.reading.pieces import MOST_PIECES, Piece, find_pieces, join
from digitfast.reading.result import Digit, Reading
from digitfast.reading.signs import Box, Sign, find_signs, is_slash


def read_digits(
    picture,  # a path, the bytes of an image file, a PIL image, an array or a tensor
    predictor: Predictor | None = None,  # None: the bundled network
    ink: str = "auto",  # dark or light, against its paper; auto: whichever it is; drawing: all
    region: Sequence[float] | None = None,  # left, top, width, height, in pixels or parts, 0..1
    n_digits: int | None = None,  # of the one number in it; None: that is not known
) -> Reading:
    """Return the digits in a picture, or in a region of it such as a field of a form, line by line.

    If the number of digits is known, return only the line that most likely has so many.
    Raises: `BadImage`, which names the file; `BadSetting`.
    """
    predictor = _checked(predictor)
    if n_digits is not None and not (isinstance(n_digits, Integral) and n_digits >= 1):
        raise BadSetting(f"n_digits must be a whole number of at least 1, not {n_digits!r}")
    corner = (0, 0)
    if region is not None:
        picture, corner = cut_region(picture, region)
    grey, scale = read_picture(picture)
    reading = _best_reading(grey, scale, predictor, ink, one=False, n_digits=n_digits)
    return _moved(_with_signs(reading, scale), corner)


def _moved(reading: Reading, corner: tuple[int, int]) -> Reading:
    "Return the reading of a region in pixels of its whole picture."
    x, y = corner

    @cache  # `digit` is one of those in `lines`
    def moved(mark):
        left, top, right, bottom = mark.box
        return replace(mark, box=(left + x, top + y, right + x, bottom + y))
    return replace(reading, digit=reading.digit and moved(reading.digit),
                   lines=[list(map(moved, line)) for line in reading.lines],
                   signs=[list(map(moved, line)) for line in reading.signs])


def _with_signs(reading: Reading, scale: float) -> Reading:
    "Return a reading with the signs of its lines; a slash is one of them, and no longer a 1."
    lines, slashes = [], []
    for line in reading.lines:
        boxes = [digit.box for digit in line]
        is_sign = [digit.guess == "1" and is_slash(box, [b for b in boxes if b is not box])
                   for digit, box in zip(line, boxes, strict=True)]
        lines.append([digit for digit, other in zip(line, is_sign, strict=True) if not other])
        slashes.append([Sign(text="/", box=box) for box in compress(boxes, is_sign)])
    scaled = [[_scaled(digit.box, scale) for digit in line] for line in reading.lines]
    signs = []
    for own, slash in zip(find_signs(reading.ink.density, scaled), slashes, strict=True):
        own = [replace(sign, box=_scaled(sign.box, 1 / scale)) for sign in own]
        signs.append(sorted([*own, *slash], key=lambda sign: sign.box))
    digits = [digit for line in lines for digit in line]
    size = [side / scale for side in reading.grey.shape[::-1]]
    return replace(reading, lines=lines, signs=signs, digit=_most_prominent(digits, size))


def _scaled(box: Box, scale: float) -> Box:
    return tuple(round(side * scale) for side in box)


def read_digit(
    picture,  # as for `read_digits`, and so are the others
    predictor: Predictor | None = None,
    ink: str = "auto",
) -> Reading:
    """Return the reading of a picture of one digit, which is its `digit`; None where there is none.

    Of several it is the most prominent one, by its size and how sure it is. A ring or a box around
    a digit is not taken for the digit, nor a pen that comes in from the edge of the picture. In a
    picture of less than 64 pixels all ink is the digit's.
    """
    predictor = _checked(predictor)
    grey, scale = read_picture(picture)
    if max(grey.shape) >= SMALL:
        return _best_reading(grey, scale, predictor, ink, one=True)
    found = even_ink(grey, ink)
    image = network_form(found.density, predictor)
    if not image.any():
        return Reading([], found, grey)
    chances = predictor.chances(image[None])[0]
    digit = _in_picture(digit_of(Piece(0, 0, found.density), image, chances, predictor), scale)
    return Reading([[digit]], found, grey, digit)


def _checked(predictor: Predictor | None) -> Predictor:
    "Return `predictor`, or the bundled one. Raises: `BadSetting` for what is no `Predictor`."
    if predictor is None:
        return Predictor.packed()
    check_predictor(predictor)
    return predictor


def _best_reading(
    grey: np.ndarray,  # uint8 `[h, w]`
    scale: float,  # of `grey`, in which the boxes are not given
    predictor: Predictor,
    ink: str,
    one: bool,  # whether one digit is asked for, so that no ink is cut
    n_digits: int | None = None,  # of the one number; None: that is not known
) -> Reading:
    "Return the reading, of those of each way to see the ink, for which most speaks."
    best = None
    for found in find_inks(grey, ink):
        reading = _read(found, grey, scale, predictor, not one, n_digits)
        if best is None or _evidence(reading) >= _evidence(best):
            best = reading
        if one and _is_beyond_doubt(best):
            break
    return best


def _is_beyond_doubt(reading: Reading, sure: float = 0.98) -> bool:
    "Return whether a reading is one sure digit, and no 1, as every line looks like one."
    digits = [digit for line in reading.lines for digit in line]
    return len(digits) == 1 and digits[0].guess != "1" and digits[0].probability >= sure


def _evidence(
    reading: Reading,
    likely: float = 0.8,  # probability from which a digit speaks for a reading
    for_one: float = 0.02,  # what a 1 speaks for it, or against it
) -> tuple[float, float]:
    """Return how much speaks for a reading.

    Each digit counts by how likely it is, and against the reading if that is little. A 1 counts
    little, as every line that is left looks like one: for the reading beside other digits of its
    height, or where there is nothing else, and against it in other places.
    """
    is_other = any(d.label and d.guess != "1" for line in reading.lines for d in line)
    total = 0.0
    others = []  # probabilities
    for line in reading.lines:
        heights = [_height(d) for d in line if d.label and d.guess != "1"]
        height = float(np.median(heights)) if heights else 0.0
        for digit in line:
            surplus = digit.probability - likely
            if digit.guess != "1":
                others.append(digit.probability)
            if digit.guess != "1" or surplus < 0:
                total += surplus
            elif is_other:
                in_row = 0.6 * height <= _height(digit) <= 1.5 * height
                total += for_one if in_row else -for_one
    if not is_other and any(d.guess == "1" for line in reading.lines for d in line):
        total += for_one
    return round(total, 2), float(np.mean(others)) if others else 0.0


def _height(digit: Digit) -> int:
    return digit.box[3] - digit.box[1]


def _read(
    found: Ink,
    grey: np.ndarray,
    scale: float,
    predictor: Predictor,
    cut: bool,
    n_digits: int | None,
) -> Reading:
    "Return what is written in some ink."
    lines = _mended(text_lines(find_pieces(found.density)), predictor)
    parts = list(_with_cuts(lines) if cut else lines)
    if n_digits is None:
        lines = [read_line(line, predictor) for line in parts]
        lines = _without_lone_bars(_without_texture(lines))
    else:
        field = read_field(parts, predictor, n_digits)
        lines = [field] if field else []
    lines = [[_in_picture(digit, scale) for digit in line] for line in lines]
    size = [side / scale for side in grey.shape[::-1]]
    most_prominent = _most_prominent([digit for line in lines for digit in line], size)
    return Reading(lines, found, grey, most_prominent)


def _without_texture(
    lines: list[list[Digit]],
    least: float = 0.4,  # sure digits among a line's marks, × their part in the surest line
) -> list[list[Digit]]:
    "Return the lines but for those with few sure digits, unless no line has one."
    def part(line: Sequence[Digit]) -> float:
        return sum(digit.label is not None for digit in line) / len(line)

    lines = [line for line in lines if line]
    surest = max(map(part, lines), default=0)
    return [line for line in lines if part(line) >= least * surest]


def _without_lone_bars(
    lines: list[list[Digit]],
    many: int = 4,  # so many lines of a single 1 are not written
) -> list[list[Digit]]:
    """Return the lines but for those of a single 1 to the side of all numbers, or many of them.

    They are edges of a page, or specks on a desk.
    """
    written = [digit.box for line in lines if len(line) > 1 for digit in line if digit.label]
    if not written:
        return lines
    left = min(box[0] for box in written)
    right = max(box[2] for box in written)
    bars = [line for line in lines if len(line) == 1 and line[0].guess == "1"]
    if len(bars) < many:
        bars = [line for line in bars if line[0].box[2] < left or line[0].box[0] > right]
    return [line for line in lines if line not in bars]


def _most_prominent(
    digits: Sequence[Digit],
    size: Sequence[float],  # width and height of the picture
) -> Digit | None:
    "Return the largest and surest digit; None if there is none."
    def is_cut_off(digit: Digit) -> bool:
        room = [*digit.box[:2], size[0] - digit.box[2], size[1] - digit.box[3]]
        return min(room) <= 0.001 * max(size)

    def is_better(other: Digit, digit: Digit) -> bool:
        around = bool(digit.label) and _is_around(digit, other)
        return other is not digit and (around or is_cut_off(digit) and not is_cut_off(other))

    sure = [digit for digit in digits if digit.label]
    digits = [d for d in digits if not any(is_better(other, d) for other in sure)] or digits
    return max(digits, default=None,
               key=lambda digit: math.sqrt(_area(digit.box)) * digit.probability)


def _is_around(outer: Digit, inner: Digit) -> bool:
    "Return whether `outer` is a ring or a box, or most of one, around `inner`, which is no speck."
    left, top = np.maximum(outer.box[:2], inner.box[:2])
    right, bottom = np.minimum(outer.box[2:], inner.box[2:])
    shared = max(0, right - left) * max(0, bottom - top)
    part = _area(inner.box) / _area(outer.box)
    return shared > 0.8 * _area(inner.box) and 0.05 < part < 0.9


def _area(box: tuple[int, int, int, int]) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _in_picture(
    digit: Digit,
    scale: float,  # of the picture that it was found in
) -> Digit:
    "Return a digit with its box in pixels of the original picture."
    return replace(digit, box=_scaled(digit.box, 1 / scale))


def _mended(lines: list[list[Piece]], predictor: Predictor) -> list[list[Piece]]:
    """Return the lines, with two as one piece where together they are a digit, as a 5 and its bar.

    They stay two if each piece is a digit.
    """
    mended: list[list[Piece]] = []
    for line in lines:
        if mended and may_be_one(mended[-1], line):
            whole = join([*mended[-1], *line])
            pieces = (whole, *mended[-1], *line)
            images = np.stack([network_form(piece.ink, predictor) for piece in pieces])
            chances = predictor.chances(images)[:, :-1].max(1)
            if chances[0] >= predictor.threshold > chances[1:].min():
                mended[-1] = [whole]
                continue
        mended.append(line)
    return mended


def _with_cuts(lines: list[list[Piece]]) -> Iterator[list[Piece]]:
    "Yield each line with its wide pieces cut, unless there are too many parts for a page."
    room = MOST_PIECES - sum(map(len, lines))
    for line in lines:
        parts = cut_touching(line)
        if len(parts) - len(line) <= room:
            room -= len(parts) - len(line)
            line = parts
        yield line
