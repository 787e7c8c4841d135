import json
import math

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy.ndimage import label

from digitfast.errors import BadImage, BadSetting
from digitfast.synthetic import photos
from digitfast.synthetic.photos import synthetic_photo

SMALL = 400, 300


def numeral(*lines) -> np.ndarray:
    "A digit of the tests' own in MNIST's form, from the corners of its lines in pixels."
    large = Image.new("L", (112, 112))
    for line in lines:
        ImageDraw.Draw(large).line(
            [(x * 4, y * 4) for x, y in line], fill=255, width=9, joint="curve"
        )
    return np.asarray(large.reduce(4))


ONE = numeral([(14, 4), (14, 24)])
ZERO = numeral([(12, 5), (16, 5), (21, 14), (16, 23), (12, 23), (7, 14), (12, 5)])
SEVEN = numeral([(8, 5), (20, 5), (13, 24)])
WIDE = numeral([(4, 6), (24, 6), (4, 22), (24, 22)])


@pytest.fixture
def drawing(monkeypatch):
    "Photos in even light without blur or noise: black marker on white paper, unless changed."
    def draw(digits, seed, size=SMALL, **given):
        plain = {
            "dark": False,
            "paper": "white",
            "pen": "black marker",
            "ruling": "plain",
            "margin_line": False,
            "desk": None,
            "touching": None,
            **given,
        }
        choose = photos._choose
        with monkeypatch.context() as patch:
            patch.setattr(photos, "_choose", lambda *args: choose(*args) | plain)
            patch.setattr(photos, "_take", lambda image, light, chosen, rng: image)
            photo = synthetic_photo(np.stack(digits), np.random.default_rng(seed), size)
        return photo, np.asarray(photo.image.convert("L")) < 120
    return draw


def test_same_seed_same_bytes():
    digits = np.stack([SEVEN, ONE, ZERO])
    before = str(np.random.get_state())
    one, same, other = (synthetic_photo(digits, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert one.image.tobytes() == same.image.tobytes() and (one.boxes, one.conditions) == (
        same.boxes,
        same.conditions,
    )
    assert one.image.tobytes() != other.image.tobytes()
    assert one.image.size == (1200, 900) and one.image.mode == "RGB"
    assert str(np.random.get_state()) == before  # no global state is touched
    assert (
        json.loads(json.dumps(one.conditions))["rotation"] == one.conditions["rotation"]
    )  # plain values


@pytest.mark.parametrize("seed", range(8))
def test_all_ink_lies_in_the_boxes_and_fills_them(drawing, seed):
    photo, ink = drawing([SEVEN, ZERO, WIDE, ONE][:1 + seed % 4], seed, size=(800, 600))
    for left, top, right, bottom in photo.boxes:
        crop = ink[top:bottom, left:right]
        assert crop[:2].any() and crop[-2:].any() and crop[:, :2].any() and crop[:, -2:].any()
    for left, top, right, bottom in photo.boxes:
        ink[top:bottom, left:right] = False
    assert not ink.any()


@pytest.mark.parametrize("seed", range(8))
def test_desk_is_seen_and_never_below_ink(drawing, seed):
    photo, _ = drawing([SEVEN, ZERO][:1 + seed % 2], seed, desk="wood")
    pixels = np.asarray(photo.image).astype(int)
    wood = pixels[..., 0] - pixels[..., 2] > 30
    assert wood.mean() > 0.01
    for left, top, right, bottom in photo.boxes:
        assert not wood[max(top - 2, 0):bottom + 2, max(left - 2, 0):right + 2].any()


@pytest.mark.parametrize("n", range(1, 11))
def test_a_box_for_each_digit_in_reading_order(drawing, n):
    digits = [ONE if i % 2 else WIDE for i in range(n)]
    photo, ink = drawing(digits, n, gap=0.3)
    boxes = np.array(photo.boxes)
    assert boxes.shape == (n, 4) and boxes.min() >= 0
    assert (boxes[:, :2] < boxes[:, 2:]).all() and (boxes[:, 2:] <= SMALL).all()
    assert (np.diff(boxes[:, 0]) > 0).all() and (np.diff(boxes[:, 2]) > 0).all()
    narrow = (boxes[:, 2] - boxes[:, 0]) < (boxes[:, 3] - boxes[:, 1]) * 0.7
    assert narrow.tolist() == [digit is ONE for digit in digits]
    assert label(ink, np.ones((3, 3)))[1] == n


@pytest.mark.parametrize("seed", range(4))
def test_touching_digits_touch_and_others_do_not(drawing, seed):
    digits = [SEVEN, ZERO, ZERO, WIDE]
    for touching, pieces in ((None, 4), (0, 3), (2, 3)):
        photo, ink = drawing(digits, seed, touching=touching, gap=0.06, size=(800, 600))
        assert label(ink, np.ones((3, 3)))[1] == pieces and len(photo.boxes) == 4


@pytest.mark.parametrize("angle", [-15, 0, 12])
def test_rotation_is_what_conditions_say(drawing, angle):
    photo, _ = drawing([ZERO] * 6, 1, rotation=angle, tilt=(0, 0), gap=0.5, size=(800, 600))
    first, last = ((np.array(box[:2]) + box[2:]) / 2 for box in (photo.boxes[0], photo.boxes[-1]))
    right, down = last - first
    assert (
        abs(math.degrees(math.atan2(-down, right)) - angle) < 6
    )  # the writer's line is not quite straight


def test_page_without_tilt_is_turned_and_not_sheared():
    chosen = {
        "rotation": 10,
        "digit_height": 2.0 * photos.UNIT,
        "desk": None,
        "place": (0.5, 0.5),
        "tilt": (0, 0),
    }
    page, height = photos._page(np.full(2, float(photos.UNIT)), (1200, 900), chosen)
    cos, sin = math.cos(math.radians(10)), math.sin(math.radians(10))
    assert (
        np.allclose(page, [[2 * cos, 2 * sin, 600], [-2 * sin, 2 * cos, 450], [0, 0, 1]])
        and height == 160
    )


def test_choices_keep_their_bounds_and_shares():
    digits, rng = np.stack([ZERO, ONE]), np.random.default_rng(0)
    rows = [photos._choose(digits, (1200, 900), rng) for _ in range(1000)]
    singles = [photos._choose(digits[:1], (1200, 900), rng) for _ in range(1000)]
    for chosen in rows + singles:
        assert (
            abs(chosen["rotation"]) <= 15
            and 40 <= chosen["jpeg_quality"] <= 95
            and chosen["darkest"] >= 0.45
        )
        assert (
            0.04 <= chosen["pen_width"] <= 0.14
            and chosen["blur_width"] <= 0.04
            and chosen["line_width"] <= 4
        )
    heights = [chosen["digit_height"] / 900 for chosen in singles]
    assert 0.06 <= min(heights) < 0.08 and 0.6 < max(heights) <= 0.7
    share = {
        name: np.mean([bool(chosen[name]) for chosen in rows])
        for name in ("dark", "desk", "shadow")
    }
    assert share == {"dark": pytest.approx(0.1, abs=0.03), "desk": pytest.approx(0.15, abs=0.04),
                     "shadow": pytest.approx(0.32, abs=0.05)}
    assert np.mean([chosen["touching"] == 0 for chosen in rows]) == pytest.approx(0.1, abs=0.03)
    assert not any(chosen["touching"] is not None for chosen in singles)


@pytest.mark.parametrize("width", [0.05, 0.08, 0.11])
def test_strokes_are_as_wide_as_the_pen(width):
    depth = photos.redraw(ONE, photos.UNIT, width)
    assert (depth[len(depth) // 2] > 0).sum() == pytest.approx(width * photos.UNIT, abs=1.5)


@pytest.mark.parametrize("seed", range(12))
def test_ink_can_be_told_from_the_page(seed):
    "In the finished photo, after light, blur, noise and JPEG."
    photo = synthetic_photo(np.stack([SEVEN, ZERO]), np.random.default_rng(seed), (640, 480))
    for box in photo.boxes:
        low, page, high = np.percentile(np.asarray(photo.image.convert("L").crop(box)), [3, 60, 97])
        assert (high - page if photo.conditions["dark"] else page - low) > 20


@pytest.mark.parametrize(
    "digits",
    [
        ONE,
        ONE[None] / 255,
        np.zeros((0, 28, 28), np.uint8),
        np.stack([ONE] * 11),
        np.ones((1, 28, 27), np.uint8),
        np.ones((1, 1, 28, 28), np.uint8),
        [ONE],
        None,
    ],
    ids=lambda digits: f"{type(digits).__name__}{getattr(digits, 'shape', '')}",
)
def test_bad_digits(digits):
    with pytest.raises(BadImage, match=r"must be uint8 \[n, 28, 28\] with n from 1 to 10, not"):
        synthetic_photo(digits, np.random.default_rng(0))


def test_digit_without_ink():
    with pytest.raises(BadImage, match="must have ink .*; digit 1 has none"):
        synthetic_photo(np.stack([ONE, ONE * 0]), np.random.default_rng(0))


@pytest.mark.parametrize(
    "size", [(299, 900), (900, 6001), (640.0, 480), (640,), 640, "small"], ids=str
)
def test_bad_sizes(size):
    message = "size must be two whole numbers of 300 to 6000 pixels, not"
    with pytest.raises(BadSetting, match=message):
        synthetic_photo(ONE[None], np.random.default_rng(0), size)


@pytest.mark.parametrize(
    "mark", [numeral([(14, 14), (14, 15)]), numeral([(0, 0), (27, 0), (27, 27)]), ONE // 200]
)
def test_any_mark_can_be_photographed(mark):
    for seed in range(3):
        assert (
            len(synthetic_photo(np.stack([mark] * 3), np.random.default_rng(seed), SMALL).boxes)
            == 3
        )
