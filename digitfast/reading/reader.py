"""A picture → the numbers written in it: which pieces of ink make up which digits, and how sure that is."""
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from PIL import Image

from digitfast.data.mnist_form import mnist_form
from digitfast.data.pictures import fit_square, read_picture
from digitfast.inference.predictor import Predictor, check_predictor
from digitfast.reading.cuts import candidates, cut_pieces, cut_touching
from digitfast.reading.ink import SMALL, find_ink
from digitfast.reading.lines import line_height, may_be_one, text_lines
from digitfast.reading.pieces import MOST_PIECES, Piece, find_pieces, join
from digitfast.reading.result import Digit, Reading

CUT_COST = 3.0  # of a cut through connected ink, in units of log-probability; twice that among digits, if it is none
JOIN_COST = 0.5  # of a piece that is taken for a part of a digit: a 7 with a line below is no 1 with a foot
GAP_COST = 2.0  # of parts that lie as far from each other as the line is high
DROP_COST = 1.5  # of a part as high as the line that is taken for no digit
LOW, LOW_COST = 0.5, 20.0  # of the line's height, below which hardly a digit is; and what it costs to be one


def read_digits(
    picture,  # a path, the bytes of an image file, a PIL image, an array or a tensor
    predictor: Predictor | None = None,  # None: the network that comes with digitfast
    ink: str = "auto",  # dark or light, against its paper; auto: whichever the picture shows; drawing: on even paper
) -> Reading:
    "The digits in a picture, line by line. Raises: `BadImage`, which names the file; `BadSetting`."
    predictor = _checked(predictor)
    grey, scale = read_picture(picture)
    return _read(grey, scale, predictor, ink, cut=True)


def _checked(predictor: Predictor | None) -> Predictor:
    "Return `predictor`, or the bundled one. Raises: `BadSetting` for what is no `Predictor`."
    if predictor is None:
        return Predictor.packed()
    check_predictor(predictor)
    return predictor


def _read(grey: np.ndarray, scale: float, predictor: Predictor, ink: str, cut: bool) -> Reading:
    "The digits in a grey picture; with `cut`, ink that hangs together may be several of them."
    found = find_ink(grey, ink)
    lines = _mended(text_lines(find_pieces(found.density)), predictor)
    lines = [_read_line(line, predictor) for line in (_with_cuts(lines) if cut else lines)]
    if any(digit.label for line in lines for digit in line):  # else what may be a digit is all there is
        lines = [line for line in lines if any(digit.label for digit in line)]
    lines = [[_in_picture(digit, scale) for digit in line] for line in lines if line]
    size = [side / scale for side in grey.shape[::-1]]
    most_prominent = _most_prominent([digit for line in lines for digit in line], size)
    return Reading(lines, found, grey, most_prominent)


def read_digit(
    picture,  # as for `read_digits`, and so are the others
    predictor: Predictor | None = None,
    ink: str = "auto",
) -> Reading:
    """The one digit in a picture, as the `digit` of its `Reading`; None where there is none.

    Of several it is the most prominent, by its size and how sure it is.

    A ring or a box around a digit is not taken for the digit, nor a pen that comes in from the edge of the picture.
    All ink of a picture of less than 64 pixels is taken to be the digit's.
    """
    predictor = _checked(predictor)
    grey, scale = read_picture(picture)
    if min(grey.shape) >= SMALL:
        return _read(grey, scale, predictor, ink, cut=False)
    found = find_ink(grey, ink)
    image = network_form(found.density, predictor)
    chances = predictor.chances(image[None])[0]
    digit = _digit(Piece(0, 0, found.density), image, chances, predictor)
    if not image.any():
        return Reading([], found, grey)
    digit = _in_picture(digit, scale)
    return Reading([[digit]], found, grey, digit)


def network_form(
    ink: np.ndarray,  # float `[h, w]`, 0 = paper to 1 = ink, of one digit and nothing else
    predictor: Predictor,
) -> np.ndarray:  # uint8 `[size, size]`, 0 = paper to 255 = ink
    "`ink` in MNIST's form, in the size that the network takes."
    return np.asarray(fit_square(Image.fromarray(mnist_form(ink)), predictor.size))


def _most_prominent(digits: Sequence[Digit], size: Sequence[float]) -> Digit | None:
    "Of `digits` the largest and surest one, in a picture of that width and height; None: there are none."
    def cut_off(digit: Digit) -> bool:
        room = [*digit.box[:2], size[0] - digit.box[2], size[1] - digit.box[3]]
        return min(room) <= 0.001 * max(size)

    def better(other: Digit, digit: Digit) -> bool:
        around = bool(digit.label) and _lies_around(digit, other)
        return other is not digit and (around or cut_off(digit) and not cut_off(other))

    sure = [digit for digit in digits if digit.label]
    digits = [digit for digit in digits if not any(better(other, digit) for other in sure)] or digits
    return max(digits, key=lambda digit: math.sqrt(_area(digit.box)) * digit.probability, default=None)


def _lies_around(outer: Digit, inner: Digit) -> bool:
    "Whether `outer` is a ring or a box, or most of one, around `inner`, which is no speck."
    (left, top), (right, bottom) = np.maximum(outer.box[:2], inner.box[:2]), np.minimum(outer.box[2:], inner.box[2:])
    shared = max(0, right - left) * max(0, bottom - top)
    return shared > 0.8 * _area(inner.box) and 0.9 * _area(outer.box) > _area(inner.box) > 0.05 * _area(outer.box)


def _area(box: tuple[int, int, int, int]) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _in_picture(digit: Digit, scale: float) -> Digit:
    "`digit` with its box in pixels of the picture that the one which was looked at is `scale` times as large as."
    return replace(digit, box=tuple(round(x / scale) for x in digit.box))


def _mended(lines: list[list[Piece]], predictor: Predictor) -> list[list[Piece]]:
    "Each line, or two as one piece where together they are a digit and not all their pieces are, such as a bar of a 5."
    mended: list[list[Piece]] = []
    for line in lines:
        if mended and may_be_one(mended[-1], line):
            whole = join([*mended[-1], *line])
            images = np.stack([network_form(piece.ink, predictor) for piece in (whole, *mended[-1], *line)])
            chances = predictor.chances(images)[:, :-1].max(1)
            if chances[0] >= predictor.threshold > chances[1:].min():
                mended[-1] = [whole]
                continue
        mended.append(line)
    return mended


def _with_cuts(lines: list[list[Piece]]) -> Iterator[list[Piece]]:
    "Each line with its wide pieces cut, as long as there are not too many parts for a page of digits."
    room = MOST_PIECES - sum(map(len, lines))
    for line in lines:
        parts = cut_touching(line)
        if len(parts) - len(line) <= room:
            room -= len(parts) - len(line)
            line = parts
        yield line


def _read_line(parts: Sequence[Piece], predictor: Predictor) -> list[Digit]:
    "The digits of a line: of all ways to put its parts together, the one that the network finds likeliest."
    runs = candidates(parts)
    joined = [join(parts[start:stop]) for start, stop in runs]
    images = np.stack([network_form(piece.ink, predictor) for piece in joined])
    chances = predictor.chances(images)
    sure = [chances[i][:-1].max() >= predictor.threshold for i, (start, stop) in enumerate(runs)
            if stop == start + 1 and not parts[start].cut_from]
    among_digits = bool(sure) and np.mean(sure) >= 0.5
    height, wholes = line_height(parts), dict.fromkeys(cut_pieces(parts), CUT_COST * (1 + among_digits))
    ending = defaultdict(list)  # runs by the part that they end before
    for i, (_, stop) in enumerate(runs):
        ending[stop].append(i)
    best: list[tuple[float, int, bool]] = [(0.0, -1, False)]  # score of the parts up to here, last run, a digit or not
    for stop in range(1, len(parts) + 1):
        ways = []
        for i in ending[stop]:
            start = runs[i][0]
            digit, none = _scores(parts[start:stop], joined[i], chances[i], height, wholes.get(runs[i]))
            cut = stop < len(parts) and 0 < parts[stop - 1].cut_from == parts[stop].cut_from
            digit, none = digit - CUT_COST * cut, none - CUT_COST * cut
            ways += [(best[start][0] + digit, i, True), (best[start][0] + none, i, False)]
        best.append(max(ways))
    digits, at = [], len(parts)
    while at:
        _, i, is_digit = best[at]
        if is_digit or joined[i].height > 0.5 * height:
            digits.append(_digit(joined[i], images[i], chances[i], predictor))
        at = runs[i][0]
    return digits[::-1]


def _scores(
    parts: Sequence[Piece],
    joined: Piece,
    chances: np.ndarray,
    height: float,  # of the line
    whole: float | None,  # what a piece that was cut costs that is none, for each height that it is wide
) -> tuple[float, float]:
    "How well it fits that these parts are one digit, and that they are none, as log-probabilities."
    ends = zip(parts, parts[1:], strict=False)
    gaps = sum(max(0, b.left - a.right) for a, b in ends) / height
    high = math.exp(-LOW_COST * max(0.0, LOW - joined.height / height))  # chance to be so low and no comma
    digit = math.log(high * chances[:-1].max() + 1e-6) - GAP_COST * gaps
    digit -= JOIN_COST * sum(not 0 < a.cut_from == b.cut_from for a, b in pairwise(parts))
    none = math.log(1 - high * (1 - chances[-1]) + 1e-3)
    if whole is not None:
        none -= whole * max(1, joined.width / height)
    elif len(parts) == 1:
        none -= DROP_COST * min(1, joined.height / height)
    else:
        none = -math.inf  # several parts that are no digit are none one by one
    return digit, none


def _digit(piece: Piece, image: np.ndarray, chances: np.ndarray, predictor: Predictor) -> Digit:
    best = int(chances[:-1].argmax())
    probability, guess = float(chances[best]), predictor.vocab[best]
    label = guess if probability >= predictor.threshold else None
    box = (piece.left, piece.top, piece.right, piece.bottom)
    return Digit(label, guess, probability, float(chances[-1]), box, image,
                 dict(zip(predictor.vocab, chances.tolist(), strict=False)))
