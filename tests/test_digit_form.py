import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from digitfast.data.mnist_form import BOX, SIDE, mnist_form, stroke_width


def seven(size: int, width: int, ink: float = 1.0) -> np.ndarray:
    image = Image.new("L", (size, size))
    corners = [(size * x, size * y) for x, y in ((.2, .1), (.8, .1), (.4, .9))]
    ImageDraw.Draw(image).line(corners, fill=255, width=width)
    return np.asarray(image) / 255 * ink


def ends(image: np.ndarray) -> tuple[int, int, int, int]:
    rows = np.flatnonzero(image.max(1) > 40)
    columns = np.flatnonzero(image.max(0) > 40)
    return rows[0], rows[-1], columns[0], columns[-1]


@pytest.mark.parametrize("size", [40, 60, 300, 1500])
@pytest.mark.parametrize("part", [0.01, 0.04, 0.1, 0.2])
def test_every_size_and_pen_gives_a_box_of_20_with_the_mass_in_the_middle(size, part):
    form = mnist_form(seven(size, max(1, round(size * part)), 0.4))
    assert form.shape == (SIDE, SIDE)
    assert form.dtype == np.uint8
    assert form.max() > 200
    top, bottom, left, right = ends(form)
    assert abs(max(bottom - top, right - left) + 1 - BOX) <= 1
    if min(top, left) > 0 and max(bottom, right) < SIDE - 1:
        assert np.abs(np.array(ndimage.center_of_mass(form)) - 14).max() < 1
    width = stroke_width(np.kron(form, np.ones((4, 4))) > 127) / 4
    assert 2 - 0.7 < width < 4 + 0.7  # MNIST's are 2 to 4 pixels


def test_images_in_mnists_form_stay_as_they_are(mnist):
    files = sorted((mnist / "testing").glob("*/*.png"))[::500]
    for file in files:
        image = np.asarray(Image.open(file))
        assert np.abs(mnist_form(image / 255).astype(int) - image).mean() < 1


def test_proportions_are_kept_and_no_ink_stays_none():
    top, bottom, left, right = ends(mnist_form(np.ones((50, 200))))
    assert right - left + 1 == BOX
    assert 4 <= bottom - top + 1 <= 6
    assert not mnist_form(np.zeros((30, 40))).any()
    assert not mnist_form(np.zeros((0, 0))).any()


def test_stroke_width_is_that_of_a_bar():
    bar = np.zeros((200, 60), bool)
    bar[10:190, 20:32] = True
    assert stroke_width(bar) == pytest.approx(12, abs=1.5)


@pytest.mark.parametrize("width", range(6, 30))
@pytest.mark.parametrize("height", [200, 207, 211])
def test_a_slim_digit_is_as_slim_as_it_was(width, height):
    "A plain 1: its width is not rounded to whole pixels; only strokes thinner than MNIST's change."
    across = mnist_form(np.ones((height, width)))[13].sum() / 255
    as_drawn = 20 * width / height
    assert across == pytest.approx(as_drawn, abs=0.2) if as_drawn > 2 else 1.2 < across < 2.2


@pytest.mark.parametrize("side", [20, 22])
def test_strokes_of_one_pixel_are_widened_in_small_pictures_too(side):
    "A 7 of one pixel: its strokes are 37 pixels long in MNIST's box."
    seven = Image.new("L", (side, side))
    ImageDraw.Draw(seven).line([(1, 1), (side - 2, 1), (side // 2, side - 2)], fill=255)
    form = mnist_form(np.asarray(seven, np.float32) / 255)
    assert form.sum() / 255 > 1.5 * 37
