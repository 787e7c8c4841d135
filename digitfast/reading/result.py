"""What was read in a picture."""
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from digitfast.reading.ink import Ink
from digitfast.reading.signs import Sign

# gaps between digits that may, mostly do, and always do end a number, × the height of the line
SPACES = 0.6, 0.8, 1.5


@dataclass(frozen=True, eq=False)
class Digit:
    "A mark in a picture that is a digit, or may be one."
    label: str | None  # its class; None: unsure
    guess: str  # the likeliest class
    probability: float  # of the likeliest class, 0..1
    no_digit: float  # probability that it is none, 0..1
    box: tuple[int, int, int, int]  # left, top, right and bottom, in pixels of the picture
    image: np.ndarray  # uint8 `[size, size]`: what the network saw
    probabilities: dict[str, float]  # of each class

    @property
    def answer(self) -> str:
        "The class; else \"unsure\", or \"no digit\" where that is likelier than any."
        return self.label or ("no digit" if self.no_digit > self.probability else "unsure")


@dataclass(frozen=True, eq=False)
class Reading:
    "What is written in a picture."
    lines: list[list[Digit]]  # in reading order
    ink: Ink
    grey: np.ndarray  # uint8 `[h, w]`: the picture as it was looked at
    digit: Digit | None = None  # the most prominent one; None: there is none
    signs: Sequence[Sequence[Sign]] = ()  # of each line, from left to right; (): not looked for

    @property
    def text(self) -> str:
        "The digits and signs by line; `?` for a mark that may be a digit, a space between numbers."
        signs = self.signs or [()] * len(self.lines)
        return "\n".join(map(_text, self.lines, signs))

    @property
    def digits(self) -> list[Digit]:
        "The digits of all lines that are sure."
        return [digit for line in self.lines for digit in line if digit.label is not None]


def described(digit: Digit) -> dict:
    "Return a mark as JSON has it."
    return {"digit": digit.label, "guess": digit.guess, "probability": digit.probability,
            "box": list(digit.box)}


def _text(line: Sequence[Digit], signs: Sequence[Sign]) -> str:
    """Return the text of a line, with spaces where gaps are wide for it.

    Digits that are as far from each other all along the line, as in the boxes of a form, are one
    number, unless they are very far. There is no space where there is a sign.
    """
    gaps = [max(0, b.box[0] - a.box[2]) for a, b in pairwise(line)]
    height = float(np.median([digit.box[3] - digit.box[1] for digit in line]))
    least, mostly, always = (height * part for part in SPACES)
    usual = sorted(gaps)[(len(gaps) - 1) // 2] if len(gaps) > 2 else 0
    wide = min(always, max(least, usual + 0.75 * least)) if len(gaps) > 2 else mostly
    text = ""
    left = -math.inf
    for digit, gap in zip(line, [0, *gaps], strict=True):
        middle = (digit.box[0] + digit.box[2]) / 2
        before = "".join(sign.text for sign in signs if left <= _middle(sign) < middle)
        text += (before or " " * (gap > wide)) + (digit.label or "?")
        left = middle
    return text + "".join(sign.text for sign in signs if _middle(sign) >= left)


def _middle(sign: Sign) -> float:
    return (sign.box[0] + sign.box[2]) / 2
