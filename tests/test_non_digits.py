import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from digitfast.errors import BadSetting
from digitfast.synthetic import letters, non_digits
from digitfast.synthetic.letters import LETTERS, SHAPES, SIGNS, UNSURE

READ_AS_DIGITS = set("OoIl|0123456789")
FORMED = [kind for kind in non_digits.KINDS if kind != "noise"]


@pytest.fixture(scope="module")
def source(digits):
    "The tests' own digits as arrays."
    files = sorted((digits / "training").glob("*/*.png"))
    return np.stack([np.asarray(Image.open(file)) for file in files]), np.array(
        [int(f.parent.name) for f in files]
    )


def rng(seed=0):
    return np.random.default_rng(seed)


def draw(kind, source, n=40):
    "`n` images of one kind."
    checked = non_digits._checked(n, *source)
    stream = rng()
    return np.stack([non_digits.KINDS[kind][1](stream, checked) for _ in range(n)])


def test_form_and_seed(source):
    images, labels = source[0].copy(), source[1].copy()
    drawn = non_digits.non_digits(60, images, labels, rng(3))
    assert drawn.shape == (60, 28, 28) and drawn.dtype == np.uint8
    assert np.array_equal(drawn, non_digits.non_digits(60, images, labels, rng(3)))
    assert not np.array_equal(drawn, non_digits.non_digits(60, images, labels, rng(4)))
    assert len({image.tobytes() for image in drawn}) > 55  # some are empty
    assert np.array_equal(images, source[0]) and np.array_equal(labels, source[1])
    assert non_digits.non_digits(0, images, labels, rng()).shape == (0, 28, 28)


def test_numpys_own_generator_is_left_alone(source):
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    non_digits.non_digits(20, *source, rng())
    assert np.array_equal(before, np.random.get_state()[1])


def test_kinds_are_mixed_as_the_table_says(source, monkeypatch):
    weights = [weight for weight, _ in non_digits.KINDS.values()]
    assert sum(weights) == pytest.approx(1)
    monkeypatch.setattr(non_digits, "KINDS", {
        kind: (weight, lambda rng, _, i=i: np.full((28, 28), i, np.uint8))
        for i, (kind, (weight, _)) in enumerate(non_digits.KINDS.items())})
    counts = np.bincount(
        non_digits.non_digits(4000, *source, rng())[:, 0, 0], minlength=len(weights)
    )
    assert counts / 4000 == pytest.approx(np.array(weights), abs=0.03)


@pytest.mark.parametrize("kind", FORMED)
def test_marks_have_mnists_form(kind, source):
    for image in draw(kind, source):
        rows, columns = np.nonzero(image > 64)
        assert image.max() > 200 and len(rows) > 10
        assert max(np.ptp(rows), np.ptp(columns)) in range(
            17, 20
        )  # the box of 20, whose edges may be faint
        ink = image / image.sum()
        assert (
            abs((ink.sum(1) @ np.arange(28)) - 13.5) < 2
            and abs((ink.sum(0) @ np.arange(28)) - 13.5) < 2
        )


def test_noise_is_empty_at_times_and_full_at_times(source):
    ink = draw("noise", source, 200).reshape(200, -1).mean(1)
    assert ink.min() == 0 and ink.max() > 150 and 20 < np.median(ink) < 100


@pytest.mark.parametrize("name", [*LETTERS, *SIGNS, *UNSURE, *SHAPES])
def test_each_way_of_a_letter_can_be_written(name):
    ways = {**LETTERS, **SIGNS, **UNSURE, **SHAPES}[name]
    for way in ways.split(" | "):
        points = [point for stroke in way.split("/") for point in stroke.split()]
        assert all(len(point.rstrip("!")) == 2 and point[:2].isdigit() for point in points)
        curves = letters.write(way, rng(), jitter=0)
        assert len(curves) == way.count("/") + 1 and all(len(curve) > 6 for curve in curves)
        corner = next((point for point in points if point.endswith("!")), points[0])
        nearest = min(
            np.abs(curve - [int(corner[0]), int(corner[1])]).max(1).min() for curve in curves
        )
        assert nearest < 1e-9  # the pen goes through the points
        ink = letters.drawn(curves, rng())
        assert (
            70 <= max(ink.shape) <= 130
            and ink.max() == 1
            and ink.min() == 0
            and 0.02 < ink.mean() < 0.7
        )


def test_letters_that_are_read_as_digits_are_left_out():
    hand, type_ = (
        {*LETTERS, *SIGNS, *UNSURE},
        {*non_digits.TYPE, *non_digits.MARKS, *non_digits.TYPE_UNSURE},
    )
    assert not READ_AS_DIGITS & (hand | type_)
    assert not set(UNSURE) & {*LETTERS, *SIGNS} and not set(non_digits.TYPE_UNSURE) & set(
        non_digits.TYPE
    )
    assert set("SZsz") <= set(UNSURE) & set(non_digits.TYPE_UNSURE)


def test_unsure_letters_come_a_tenth_as_often(monkeypatch):
    written = []
    monkeypatch.setattr(letters, "write", lambda ways, *_: written.append(ways))
    monkeypatch.setattr(letters, "posed", lambda *_, **__: None)
    monkeypatch.setattr(letters, "drawn", lambda *_: None)
    stream = rng()
    for _ in range(20000):
        letters.letter(stream)
    each = [
        np.mean([written.count(ways) for ways in table.values()]) for table in (UNSURE, LETTERS)
    ]
    assert each[0] / each[1] == pytest.approx(0.1, abs=0.02)


def test_no_letter_is_written_twice_the_same():
    stream = rng()
    written = [letters.write("00 45 90", stream, jitter=0.3)[0] for _ in range(200)]
    assert np.std(written, axis=0)[[0, -1]] == pytest.approx(0.3, abs=0.06)
    posed = [letters.posed([written[0]], stream)[0].tobytes() for _ in range(20)]
    drawn = [letters.drawn([written[0]], stream).tobytes() for _ in range(20)]
    assert len(set(posed)) == len(set(drawn)) == 20


def test_fonts_have_what_is_typed():
    "Each letter is one of its own, not the box that stands for what a font lacks."
    plain = non_digits.faces(non_digits.PLAIN_FONTS)
    rich = non_digits.faces(non_digits.FONTS)
    assert len(rich) >= 10 and len(plain) >= 5
    letters_only = non_digits.TYPE + non_digits.TYPE_UNSURE
    for font in rich + plain:
        names = letters_only + (non_digits.MARKS if font in rich else "")
        looks = [_look(font, name) for name in names]
        assert len(set(looks)) > 0.85 * len(names)  # some letters of two scripts are the same
        assert _look(font, "\uffff") not in looks and _look(font, " ") not in looks


def test_fonts_show_the_letters_themselves():
    "Each font's letters look like another's; fonts of symbols, such as cmsy10, have other signs."
    fonts = non_digits.faces(non_digits.FONTS + non_digits.PLAIN_FONTS)
    looks = np.array([[_square(font, name) for name in non_digits.TYPE] for font in fonts])
    looks = (looks - looks.mean(2, keepdims=True)) / looks.std(2, keepdims=True)
    alike = np.median(
        np.einsum("alp,blp->abl", looks, looks) / looks.shape[2], axis=2
    ) - 2 * np.eye(len(fonts))
    assert {
        font.getname() for font, best in zip(fonts, alike.max(1), strict=True) if best < 0.5
    } == set()


def _square(font: ImageFont.FreeTypeFont, name: str) -> np.ndarray:
    mask = font.getmask(name)
    image = Image.frombytes("L", mask.size, bytes(mask))
    return np.asarray(
        image.crop(image.getbbox()).resize((16, 16), Image.Resampling.BOX), float
    ).ravel()


def _look(font: ImageFont.FreeTypeFont, name: str) -> bytes:
    image = Image.new("L", (136, 136))
    ImageDraw.Draw(image).text((68, 68), name, 255, font, "mm")
    return image.tobytes()


def bar(h, w):
    "A filled rectangle on paper."
    ink = np.zeros((100, 100), np.float32)
    ink[50 - h // 2:50 + h // 2, 50 - w // 2:50 + w // 2] = 1
    return ink


def ring(gap=0):
    "A circle, its upper part left out over `gap` rows."
    ys, xs = np.mgrid[-50:50, -50:50]
    return ((abs(np.hypot(ys, xs) - 35) < 6) & (ys > -44 + gap)).astype(np.float32)


def test_parts_that_are_digits_are_known():
    assert non_digits._is_slim(bar(80, 14), 0.55) and not non_digits._is_slim(bar(14, 80), 0.55)
    assert not non_digits._is_slim(bar(80, 60), 0.55) and non_digits._is_slim(bar(6, 6), 0.55)
    assert non_digits._is_slim(np.zeros((50, 50), np.float32), 0.55)
    assert non_digits._is_ring(ring()) and non_digits._is_ring(ring(gap=6))
    assert not non_digits._is_ring(ring(gap=40)) and not non_digits._is_ring(bar(80, 14))


def test_part_keeps_its_side_without_specks():
    ink = bar(80, 40)[10:90, 30:70]
    for side in ("top", "bottom", "middle"):
        assert non_digits._part(ink, side, 0.4, 0).shape == pytest.approx((32, 40), abs=1)
    ink[20:60] = 0  # two blocks
    assert non_digits._part(ink, "top", 0.5, 0).shape[0] == 20
    assert non_digits._part(ink, "middle", 0.4, 0).sum() == 0
    ink[20:24, :3] = 0
    ink[30:33, 10:13] = 1  # a speck
    assert non_digits._part(ink, "top", 0.5, 0).shape[0] == 20
    tilted = non_digits._part(bar(80, 80)[10:90, 10:90], "top", 0.5, 0.25)
    assert tilted[:, :10].sum() > tilted[:, -10:].sum() + 50  # rises


def test_no_piece_is_a_stroke_or_a_ring(source, monkeypatch):
    checked, stream = non_digits._checked(1, *source), rng()
    monkeypatch.setattr(non_digits, "shape", lambda _: None)  # what is drawn when no part will do
    pieces = [non_digits._piece(stream, checked) for _ in range(100)]
    kept = [piece for piece in pieces if piece is not None]
    assert len(kept) > 90
    assert not any(non_digits._is_slim(piece, 0.55) or non_digits._is_ring(piece) for piece in kept)
    assert not {1, 7} & {cut[0] for cut in non_digits.CUTS}


def test_mirrored_digits_are_mirrored(source):
    checked = non_digits._checked(1, *source)
    only = non_digits._Digits(
        np.zeros((10, 28, 28), np.uint8), [np.array([digit]) for digit in range(10)]
    )
    only.images[[3, 7], 6:9, 6:22] = only.images[[3, 7], 6:22, 18:22] = 255  # a 7: bar and leg
    ink = non_digits._mirrored(rng(), only)
    assert ink[-10:, :10].mean() > 0.7 and ink[-10:, -10:].mean() < 0.1
    assert all(non_digits._mirrored(rng(seed), checked).max() > 0.5 for seed in range(5))


def test_joined_digits_lie_side_by_side():
    squares = non_digits._Digits(
        np.zeros((10, 28, 28), np.uint8), [np.array([digit]) for digit in range(10)]
    )
    squares.images[:, 4:24, 4:24] = 255
    shapes = np.array([non_digits._joined(rng(seed), squares).shape for seed in range(60)])
    assert (shapes[:, 1] / shapes[:, 0]).mean() > 1.3 and (shapes[:, 1] / shapes[:, 0]).min() > 0.6


@pytest.mark.parametrize("change, message", [
    (lambda n, x, y: (-1, x, y), "n must be a whole number of at least 0 .*, not -1"),
    (lambda n, x, y: (2.5, x, y), "n must be .*, not 2.5"),
    (lambda n, x, y: (n, x / 255, y), "float64"),
    (lambda n, x, y: (n, x[:, :20], y), "20, 28"),
    (lambda n, x, y: (n, x, y[:-1]), "labels"),
    (lambda n, x, y: (n, x, y.astype(float)), "labels must be integers .*, not float64"),
    (lambda n, x, y: (n, x[y != 4], y[y != 4]), "each digit"),
    (lambda n, x, y: (n, x, np.where(y == 4, 10, y)), "each digit"),
])
def test_mistakes(source, change, message):
    with pytest.raises(BadSetting, match=message):
        non_digits.non_digits(*change(5, *source), rng())
