import numpy as np
import pytest
from PIL import Image, ImageDraw

from digitfast import read_digits
from digitfast.reading.line_search import _among_digits


def test_open_zeros_in_a_chain_are_read_one_by_one():
    page = Image.new("L", (420, 160), 235)
    draw = ImageDraw.Draw(page)
    for left in (40, 106, 172, 238):  # each shares a stroke with the next, and is open at its top
        draw.arc((left, 40, left + 72, 130), -75, 255, fill=30, width=8)
    assert read_digits(page).text == "0000"


def test_a_mark_among_digits_is_likelier_one():
    chances = np.array([[0.3, 0.1, 0.6], [0.0, 0.0, 1.0]])
    expected = np.array([[0.5, 1 / 6, 1 / 3], [0.0, 0.0, 1.0]])
    assert _among_digits(chances) == pytest.approx(expected)
