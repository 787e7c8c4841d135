"""A line of parts → its digits: of all ways to put the parts together, the likeliest."""
import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from PIL import Image

from digitfast.data.mnist_form import mnist_form
from digitfast.data.pictures import fit_square
from digitfast.inference.predictor import Predictor
from digitfast.reading.cuts import candidates, cut_pieces
from digitfast.reading.lines import line_height
from digitfast.reading.pieces import Piece, join
from digitfast.reading.result import Digit

# in units of log-probability
CUT_COST = 2.0  # of a cut through connected ink
CUT_ONE_COST = 2.0  # of a 1 that is cut from connected ink: every stroke looks like one
WHOLE_COST = 3.5  # of connected ink that could be cut and is no digit, per line height of its width
JOIN_COST = 0.5  # of a piece that is taken for a part of a digit and not for one of its own
GAP_COST = 2.0  # of parts that are as far from each other as the line is high
DROP_COST = 1.5  # of a part as high as the line that is taken for no digit
WIDE_COST = 8.0  # of a digit that is wider than `WIDEST` by the height of the line
LOW_COST = 20.0  # of a digit that is lower than `LOWEST` by the height of the line
WIDEST = 1.1  # width of a digit, × the height of the line
LOWEST = 0.5  # height of a digit, × the height of the line
ODDS_AMONG_DIGITS = 3.0  # × the odds that a mark is a digit, where most of its line are


def read_line(
    parts: Sequence[Piece],  # from left to right
    predictor: Predictor,
) -> list[Digit]:
    """Return the digits of a line: a Viterbi search over the runs of parts that may be one digit.

    A mark that is high enough to be a digit and is more likely none is among them, unsure. Where
    most are sure, the line is searched again with better odds for the others.
    """
    return _searched(parts, predictor)[1]


def read_field(
    lines: Sequence[Sequence[Piece]],
    predictor: Predictor,
    n_digits: int,  # of the one number
) -> list[Digit]:
    "Return the digits of the line that most likely has so many, or as many as can be."
    found = [_searched(parts, predictor, n_digits) for parts in lines]
    return max(found, key=lambda line: (len(line[1]), line[0]), default=(0.0, []))[1]


def _searched(
    parts: Sequence[Piece],
    predictor: Predictor,
    n_digits: int | None = None,  # how many there are; None: that is not known
) -> tuple[float, list[Digit]]:  # log-probability of the line, its digits

    runs = candidates(parts)
    joined = [join(parts[start:stop]) for start, stop in runs]
    images = np.stack([network_form(piece.ink, predictor) for piece in joined])
    chances = predictor.chances(images)
    score, marks = _likeliest(parts, runs, joined, chances, predictor.vocab, n_digits)
    sure = [i for i in marks if chances[i][:-1].max() >= predictor.threshold]
    if len(marks) > len(sure) >= len(marks) / 2:
        chances = _among_digits(chances)
        score, marks = _likeliest(parts, runs, joined, chances, predictor.vocab, n_digits)
    return score, [digit_of(joined[i], images[i], chances[i], predictor) for i in marks]


def _among_digits(chances: np.ndarray) -> np.ndarray:
    "Return the probabilities for marks in a line of digits, where another mark is seldom none."
    none = chances[:, -1:] / ODDS_AMONG_DIGITS
    return np.hstack([chances[:, :-1], none]) / (1 - chances[:, -1:] + none)


def _likeliest(
    parts: Sequence[Piece],
    runs: Sequence[tuple[int, int]],  # of parts: candidates for one digit
    joined: Sequence[Piece],  # each run as one piece
    chances: np.ndarray,  # float `[runs, classes + 1]`, "no digit" last
    vocab: Sequence[str],
    n_digits: int | None,
) -> tuple[float, list[int]]:
    """Return a score and the runs, by number, that are digits, or high enough to be one.

    If it is known how many there are, return so many that are digits, or as many as can be.
    """
    is_one = [vocab[best] == "1" for best in chances[:, :-1].argmax(1)]
    height = line_height(parts)
    wholes = set(cut_pieces(parts))
    ending = defaultdict(list)  # runs by the part that they end before
    for i, (_, stop) in enumerate(runs):
        ending[stop].append(i)
    # of the parts up to here, by the number of digits (0 if it does not matter):
    # their score, last run, and whether that is a digit
    best: list[dict[int, tuple[float, int, bool]]] = [{0: (0.0, -1, False)}]
    for stop in range(1, len(parts) + 1):
        ways = defaultdict(list)
        is_cut = stop < len(parts) and 0 < parts[stop - 1].cut_from == parts[stop].cut_from
        for i in ending[stop]:
            start = runs[i][0]
            digit, none = _scores(parts[start:stop], joined[i], chances[i], height,
                                  runs[i] in wholes)
            if is_one[i] and runs[i] not in wholes and parts[start].cut_from:
                digit -= CUT_ONE_COST
            for n, (score, _, _) in best[start].items():
                before = score - CUT_COST * is_cut
                ways[n].append((before + none, i, False))
                counted = n if n_digits is None else n + 1
                if counted <= (n_digits or 0):
                    ways[counted].append((before + digit, i, True))
        best.append({n: max(of_n) for n, of_n in ways.items()})
    marks = []
    at, n = len(parts), max(best[-1])
    score = best[at][n][0]
    while at:
        _, i, is_digit = best[at][n]
        if is_digit or (n_digits is None and joined[i].height > 0.5 * height):
            marks.append(i)
        n -= is_digit and n_digits is not None
        at = runs[i][0]
    return score, marks[::-1]


def _scores(
    parts: Sequence[Piece],
    joined: Piece,
    chances: np.ndarray,
    height: float,  # of the line
    is_whole: bool,  # whether they are all parts of a piece that was cut
) -> tuple[float, float]:
    "Return the log-probabilities that these parts are one digit, and that they are none."
    gaps = sum(max(0, b.left - a.right) for a, b in pairwise(parts)) / height
    n_joined = sum(not 0 < a.cut_from == b.cut_from for a, b in pairwise(parts))
    high = math.exp(-LOW_COST * max(0.0, LOWEST - joined.height / height))  # chance to be so low
    digit = math.log(high * chances[:-1].max() + 1e-6) - GAP_COST * gaps - JOIN_COST * n_joined
    digit -= WIDE_COST * max(0.0, joined.width / height - WIDEST)
    none = math.log(1 - high * (1 - chances[-1]) + 1e-3)
    if is_whole:
        none -= WHOLE_COST * max(1, joined.width / height)
    elif len(parts) == 1:
        none -= DROP_COST * min(1, joined.height / height)
    else:
        none = -math.inf  # several parts that are no digit are none one by one
    return digit, none


def network_form(
    ink: np.ndarray,  # float `[h, w]`, 0 = paper to 1 = ink, of one digit and nothing else
    predictor: Predictor,
) -> np.ndarray:  # uint8 `[size, size]`, 0 = paper to 255 = ink
    "Return `ink` in MNIST's form, in the size that the network takes."
    return np.asarray(fit_square(Image.fromarray(mnist_form(ink)), predictor.size))


def digit_of(
    piece: Piece,
    image: np.ndarray,  # uint8 `[size, size]`: `piece` in the network's form
    chances: np.ndarray,  # float `[classes + 1]`, "no digit" last
    predictor: Predictor,
) -> Digit:
    "Return a piece with what the network says of it."
    best = int(chances[:-1].argmax())
    probability, guess = float(chances[best]), predictor.vocab[best]
    return Digit(
        label=guess if probability >= predictor.threshold else None,
        guess=guess,
        probability=probability,
        no_digit=float(chances[-1]),
        box=(piece.left, piece.top, piece.right, piece.bottom),
        image=image,
        probabilities=dict(zip(predictor.vocab, chances.tolist(), strict=False)))
