"Ruled lines, squares and boxes go; strokes stay."
import numpy as np
import pytest
from PIL import Image, ImageDraw

from digitfast.reading.rulings import without_rulings

SEVEN = [(100, 60), (170, 60), (120, 200)]


def drawn(*lines, size=(400, 260), width=10) -> np.ndarray:
    "A 7 and lines of two pixels, as ink."
    image = Image.new("L", size)
    pen = ImageDraw.Draw(image)
    pen.line(SEVEN, fill=255, width=width, joint="curve")
    for line in lines:
        pen.line(line, fill=255, width=2)
    return np.asarray(image, np.float32) / 255


def part_left(density: np.ndarray, of: np.ndarray) -> float:
    return float((density * of).sum() / of.sum())


RULED = [((0, y), (400, y + fall)) for fall in (0, 30) for y in range(20, 260, 40)]
RULED_PAGES = {"level": RULED[:6], "falling": RULED[6:]}
BOXES = [((10, 40), (390, 40)), ((10, 220), (390, 220)),
         *(((x, 40), (x, 220)) for x in range(10, 391, 76))]
SQUARES = [*RULED[:6], *(((x, 0), (x, 260)) for x in range(15, 400, 40))]


@pytest.mark.parametrize("lines", [*RULED_PAGES.values(), BOXES, SQUARES],
                         ids=[*RULED_PAGES, "boxes", "squares"])
def test_lines_go_and_the_digit_stays(lines):
    digit = drawn()
    left = without_rulings(drawn(*lines))
    assert part_left(left, digit) > 0.9
    assert part_left(left, np.maximum(drawn(*lines) - digit, 0)) < 0.1


def test_a_page_without_lines_stays_as_it_is():
    digit = drawn()
    assert np.array_equal(without_rulings(digit), digit)


def test_a_single_line_goes_if_it_goes_on_beyond_the_digit():
    line = ((0, 230), (400, 230))
    assert part_left(without_rulings(drawn(line)), drawn(line) - drawn()) < 0.1


@pytest.mark.parametrize("strokes", [
    [((10, 40), (90, 40)), ((10, 170), (90, 170))],  # the bar and the foot of a 2 or a 7
    [((10, 90), (90, 90))],
    [((x, 20), (x, 160)) for x in range(8, 95, 16)],  # 111111
])
def test_thin_strokes_of_a_digit_cut_out_stay(strokes):
    image = Image.new("L", (100, 180))
    for stroke in strokes:
        ImageDraw.Draw(image).line(stroke, fill=255, width=3)
    ImageDraw.Draw(image).line(((90, 40), (10, 170)), fill=255, width=3)
    density = np.asarray(image, np.float32) / 255
    assert np.array_equal(without_rulings(density), density)
