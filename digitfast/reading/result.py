"""What was read in a picture."""
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from digitfast.reading.ink import Ink

SPACES = 0.6, 0.8, 1.5  # gaps between digits that may, mostly do, and always do end a number, in heights of the line


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

    @property
    def text(self) -> str:
        "The digits, line by line; `?` for a mark that may be one, a space where a number ends."
        return "\n".join(map(_text, self.lines))

    @property
    def digits(self) -> list[Digit]:
        "The digits of all lines that are sure."
        return [digit for line in self.lines for digit in line if digit.label is not None]


def described(digit: Digit) -> dict:
    "A mark as JSON has it."
    return {"digit": digit.label, "guess": digit.guess, "probability": digit.probability, "box": list(digit.box)}


def _text(line: Sequence[Digit]) -> str:
    """The text of a line, with spaces where gaps are wide for it.

    Digits that are as far from each other all along the line, as in the boxes of a form, are one number, unless they
    are very far.
    """
    gaps = [max(0, b.box[0] - a.box[2]) for a, b in zip(line, line[1:], strict=False)]
    height = float(np.median([digit.box[3] - digit.box[1] for digit in line]))
    least, mostly, always = (height * part for part in SPACES)
    usual = sorted(gaps)[(len(gaps) - 1) // 2] if len(gaps) > 2 else 0
    wide = min(always, max(least, usual + 0.75 * least)) if len(gaps) > 2 else mostly
    marks = [digit.label or "?" for digit in line]
    return marks[0] + "".join(" " * (gap > wide) + mark for gap, mark in zip(gaps, marks[1:], strict=True))
