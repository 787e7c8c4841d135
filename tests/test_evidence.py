"""Which of two readings of a picture is the better one."""
import numpy as np
import pytest

from digitfast import read_digit
from digitfast.reading.ink import Ink
from digitfast.reading.reader import _evidence
from digitfast.reading.result import Digit, Reading

NO_INK = Ink(np.zeros((1, 1), np.float32), True)


def reading(*lines: str, probability: float = 0.99, heights: str = "") -> Reading:
    "Lines of digits 100 pixels high, or half as high where `heights` has an h for the digit."
    image = np.zeros((28, 28), np.uint8)
    found = []
    for i, text in enumerate(lines):
        line = []
        for j, guess in enumerate(text):
            height = 50 if heights[j:j + 1] == "h" else 100
            box = (60 * j, 200 * i, 60 * j + 50, 200 * i + height)
            line.append(Digit(guess, guess, probability, 0.0, box, image, {}))
        found.append(line)
    return Reading(found, NO_INK, np.zeros((1, 1), np.uint8))


@pytest.mark.parametrize(("better", "worse"), [
    (reading("7"), reading("1", probability=0.999)),  # a fragment of the 7
    (reading("7"), reading()),
    (reading("1"), reading()),
    (reading("123"), reading("23")),  # a 1 as high as the digits beside it
    (reading("23"), reading("123", heights="h  ")),  # a line that is left over
    (reading("8"), reading("8", "1")),  # the edge of a desk
    (reading("8"), reading("1", "11")),
    (reading("404"), reading("04")),
    (reading("42"), reading("42", probability=0.9)),
    (reading(), reading("4", probability=0.3)),  # texture
])
def test_the_reading_for_which_more_speaks(better, worse):
    assert _evidence(better) > _evidence(worse)


def test_a_one_that_the_network_takes_for_a_ruling_is_read():
    page = np.full((280, 280), 255, np.uint8)
    page[60:220, 140:142] = 20
    assert read_digit(page).digit.label == "1"
