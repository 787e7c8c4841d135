import numpy as np
import pytest

from digitfast.errors import BadImage
from digitfast.reading.reader import read_digits
from digitfast.synthetic.pages import MOST_IN_LINE, synthetic_page

BAR = np.zeros((28, 28), np.uint8)
BAR[4:24, 13:16] = 255


def test_same_seed_same_page_with_every_digit_in_a_line():
    digits = np.stack([BAR] * 25)
    one, same, other = (
        synthetic_page(digits, np.random.default_rng(seed), (800, 600)) for seed in (3, 3, 4)
    )
    assert (
        one.image.tobytes() == same.image.tobytes() != other.image.tobytes()
        and one.lengths == same.lengths
    )
    assert one.image.size == (800, 600) and one.image.mode == "RGB"
    assert sum(one.lengths) == 25 and 1 <= min(one.lengths) <= max(one.lengths) <= MOST_IN_LINE


@pytest.mark.parametrize(
    "digits",
    [
        np.zeros((0, 28, 28), np.uint8),
        np.zeros((101, 28, 28), np.uint8),
        np.zeros((2, 20, 20), np.uint8),
        np.zeros((2, 28, 28)),
        None,
    ],
)
def test_other_digits_are_told(digits):
    with pytest.raises(BadImage, match="uint8"):
        synthetic_page(digits, np.random.default_rng(0))


@pytest.mark.parametrize("seed", range(6))
def test_ones_are_not_taken_for_lines_of_the_paper(seed):
    "Upright strokes on ruled and squared paper, unlike its lines, end. One or two may break."
    page = synthetic_page(np.stack([BAR] * 12), np.random.default_rng(seed))
    text = "".join(digit.guess for line in read_digits(page.image).lines for digit in line)
    assert 10 <= text.count("1") <= len(text) <= 14
