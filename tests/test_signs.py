"""Signs between digits are read by their size and place, and specks are none."""
import numpy as np
import pytest
from PIL import Image, ImageDraw

from digitfast import read_digits
from digitfast.reading.signs import find_signs, is_slash

DIGITS = [(100, 100, 150, 200), (200, 100, 250, 200)]  # in a line, 100 pixels high


def signs_of(*marks, digits=DIGITS) -> str:
    "The signs that are found where there are boxes of ink."
    density = np.zeros((320, 500), np.float32)
    for left, top, right, bottom in [*digits, *marks]:
        density[top:bottom, left:right] = 1
    line, = find_signs(density, [digits])
    return "".join(sign.text for sign in line)


@pytest.mark.parametrize(("text", "marks"), [
    (".", [(170, 188, 182, 200)]),
    (",", [(168, 185, 180, 225)]),
    ("'", [(170, 95, 180, 120)]),
    ("-", [(160, 145, 190, 155)]),
    (":", [(170, 130, 182, 142), (170, 180, 182, 192)]),
    (".-", [(170, 188, 182, 200), (260, 145, 300, 155)]),
])
def test_a_sign_is_told_by_its_size_and_place(text, marks):
    assert signs_of(*marks) == text


@pytest.mark.parametrize("mark", [
    (170, 198, 173, 200),  # a speck
    (170, 240, 182, 252),  # far below
    (350, 188, 362, 200),  # far to the right
    (110, 120, 140, 140),  # within a digit
    (160, 100, 195, 200),  # as large as a digit
])
def test_other_marks_are_no_signs(mark):
    assert signs_of(mark) == ""


def test_a_line_with_more_marks_than_digits_has_texture():
    assert signs_of(*((x, 185, x + 12, 197) for x in (60, 160, 175, 260))) == ""


def test_a_slash_is_taller_than_the_digits_around_and_far_from_upright():
    assert is_slash((140, 80, 220, 210), DIGITS)
    assert not is_slash((150, 80, 205, 210), DIGITS)  # a tall, slanted 1
    assert not is_slash((145, 100, 205, 200), DIGITS)  # no taller than the others
    assert not is_slash((260, 80, 340, 210), DIGITS)  # after all digits


def written(*marks: tuple, size=(700, 240)) -> np.ndarray:
    "Two sevens and other marks by the same pen."
    image = Image.new("L", size, 240)
    pen = ImageDraw.Draw(image)
    for left in (80, 250):
        pen.line([(left, 60), (left + 70, 60), (left + 20, 170)], fill=30, width=12, joint="curve")
    for line in marks:
        pen.line(line, fill=30, width=12)
    return np.asarray(image)


@pytest.mark.parametrize(("text", "mark"), [
    ("7.7", [(190, 164), (200, 164)]),
    ("7,7", [(200, 160), (187, 195)]),
    ("7-7", [(170, 125), (215, 125)]),
    ("7/7", [(155, 190), (238, 45)]),
    ("77-", [(350, 115), (410, 115)]),
])
def test_signs_are_part_of_the_text(text, mark):
    reading = read_digits(written(mark))
    assert reading.text == text
    assert [digit.label for digit in reading.digits] == ["7", "7"]


def test_the_most_prominent_digit_is_no_slash():
    reading = read_digits(written([(155, 190), (238, 45)]))
    assert reading.text == "7/7"
    assert any(reading.digit is digit for digit in reading.digits)


def test_boxes_of_signs_are_in_pixels_of_the_picture():
    large = np.asarray(Image.fromarray(written([(170, 125), (215, 125)])).resize((4200, 1440)))
    (sign,), = read_digits(large).signs
    assert sign.box == pytest.approx((1020, 714, 1290, 786), abs=40)
