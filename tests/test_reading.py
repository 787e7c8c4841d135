import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from digitfast import Predictor, read_digit, read_digits
from digitfast.errors import BadImage, BadSetting
from digitfast.reading.cuts import MOST_PARTS
from digitfast.reading.figures import check_figures, draw_boxes, draw_steps
from digitfast.reading.ink import Ink, even_ink
from digitfast.reading.pieces import MOST_PIECES, find_pieces
from digitfast.reading.result import Digit, Reading
from digitfast.synthetic.photos import synthetic_photo


@pytest.fixture(scope="module")
def digit_images(mnist) -> dict[int, np.ndarray]:
    "One clear image of each digit."
    return {
        d: np.asarray(Image.open(sorted((mnist / f"testing/{d}").glob("*.png"))[3]))
        for d in range(10)
    }


def sheet(digit_images, *numbers: str, gap: int = 30, flip: bool = False) -> Image.Image:
    "Numbers, each on a line of its own, in dark ink on light paper."
    page = Image.new("L", (1000, 60 + 150 * len(numbers)), 20 if flip else 235)
    for row, number in enumerate(numbers):
        for i, digit in enumerate(number):
            ink = Image.fromarray(digit_images[int(digit)]).resize(
                (112, 112), Image.Resampling.BICUBIC
            )
            page.paste(240 if flip else 30, (40 + i * (80 + gap), 40 + 150 * row), ink)
    return page


def test_numbers_line_by_line(digit_images):
    reading = read_digits(sheet(digit_images, "3141", "5926"))
    assert reading.text == "3141\n5926"
    for line, top in zip(reading.lines, (40, 190), strict=True):
        for i, digit in enumerate(line):
            left, upper, right, bottom = digit.box
            assert (
                40 + i * 110 - 5 <= left < right <= 40 + i * 110 + 117
                and top - 5 <= upper < bottom <= top + 117
            )
            assert digit.image.shape == (28, 28) and 0.6 < digit.probability <= 1
            assert sum(digit.probabilities.values()) + digit.no_digit == pytest.approx(1)


def test_light_ink_on_dark_and_far_numbers_apart(digit_images):
    assert read_digits(sheet(digit_images, "507", flip=True)).text == "507"
    page = sheet(digit_images, "1", "2")
    page.paste(sheet(digit_images, "7").crop((30, 30, 160, 170)), (520, 30))
    assert read_digits(page).text.split("\n")[0] == "1 7"


LETTERS = {
    "A": [[(100, 30), (50, 170)], [(100, 30), (150, 170)], [(70, 115), (130, 115)]],
    "E": [[(140, 30), (60, 30), (60, 170), (140, 170)], [(60, 100), (125, 100)]],
    "K": [[(60, 30), (60, 170)], [(140, 30), (60, 105), (145, 170)]],
    "W": [[(20, 50), (60, 160), (100, 50), (140, 160), (180, 50)]],
    "X": [[(40, 40), (160, 160)], [(160, 40), (40, 160)]],
    "#": [
        [(70, 30), (60, 170)],
        [(130, 30), (120, 170)],
        [(30, 75), (170, 75)],
        [(30, 125), (170, 125)],
    ],
}


def drawing(*strokes, width: int, size: int = 200) -> Image.Image:
    image = Image.new("L", (size, size), 255)
    for stroke in strokes:
        ImageDraw.Draw(image).line(
            [tuple(point) for point in stroke], fill=0, width=width, joint="curve"
        )
    return image


@pytest.mark.parametrize("width", [5, 9])
@pytest.mark.parametrize("letter", LETTERS)
def test_no_part_of_a_letter_is_a_digit(letter, width):
    for ink in ("drawing", "auto"):
        assert read_digits(drawing(*LETTERS[letter], width=width), ink=ink).text.replace(
            " ", ""
        ) in ("", "?")


def test_a_tangle_of_lines_holds_no_digits():
    held = []
    for seed in range(60):
        tangle = drawing(np.random.default_rng(seed).uniform(20, 180, (60, 2)), width=5)
        assert not read_digits(tangle, ink="drawing").digits
        held.append(bool(read_digits(tangle).digits))
    assert sum(held) <= 3


def test_digits_that_touch_are_cut_apart_and_a_comma_is_a_sign(digit_images):
    row = Image.new("L", (600, 200), 255)
    left = 60
    for digit in "2743":
        large = Image.fromarray(digit_images[int(digit)]).resize(
            (112, 112), Image.Resampling.BICUBIC
        )
        large = large.crop(large.point(lambda ink: 255 * (ink > 100)).getbbox())
        row.paste(20, (left, 40), large)
        left += large.width - 4
    assert len(find_pieces(even_ink(np.asarray(row)).density)) < 4
    assert read_digits(row, ink="drawing").text == read_digits(row).text == "2743"
    page = sheet(digit_images, "3141")
    ImageDraw.Draw(page).line([(145, 130), (139, 158)], fill=30, width=9)
    assert read_digits(page).text == read_digits(page, ink="drawing").text == "3,141"


@pytest.mark.parametrize("ink", ["auto", "drawing"])
def test_a_digit_whose_stroke_is_broken_is_one(ink):
    two = drawing(
        [(65, 50), (90, 32), (125, 38), (130, 62), (105, 95)],
        [(92, 108), (70, 150), (145, 146)],
        width=9,
    )
    assert len(find_pieces(even_ink(np.asarray(two)).density)) == 2
    reading = read_digit(two, ink=ink)
    digit = reading.digit
    assert (digit.label, len(reading.digits), read_digits(two, ink=ink).text) == ("2", 1, "2")
    assert digit.box[1] < 35 and digit.box[3] > 145


def test_digits_above_each_other_are_not_one_nor_with_a_line_below(digit_images):
    column = drawing(
        [(70, 30), (130, 30), (95, 95)], [(105, 102), (100, 170)], width=7
    )  # 7 and right below it 1
    assert read_digits(column, ink="drawing").text == "7\n1"
    underlined = drawing([(70, 30), (130, 30), (95, 130)], [(60, 142), (140, 139)], width=7)
    assert read_digits(underlined, ink="drawing").text == "7"


def test_one_digit_small_in_a_corner_of_a_large_photo(digit_images):
    page = Image.new("L", (4000, 3000), 230)
    page.paste(
        25,
        (3600, 150),
        Image.fromarray(digit_images[4]).resize((200, 200), Image.Resampling.BICUBIC),
    )
    reading = read_digit(page)
    digit = reading.digit
    assert (
        digit.label == "4"
        and 3600 <= digit.box[0] < digit.box[2] <= 3800
        and max(reading.grey.shape) <= 2000
    )


def marks(*spans: tuple[int, int], height: int = 40) -> list[Digit]:
    "Digits 7 of one line, from and to those columns."
    return [
        Digit("7", "7", 0.9, 0.1, (left, 10, right, 10 + height), np.zeros((28, 28), np.uint8), {})
        for left, right in spans
    ]


@pytest.mark.parametrize(
    "gaps, text",
    [
        ([8, 8, 12], "7777"),
        ([8, 30, 8], "77 77"),
        ([40, 8, 40, 14], "7 77 77"),
        ([24, 22, 26, 24], "77777"),
        ([30, 30, 30], "7777"),
        ([8], "77"),
        ([36], "7 7"),
        ([300, 300, 300], "7 7 7 7"),
    ],
)
def test_a_space_is_a_gap_that_is_wide_for_its_line(gaps, text):
    lefts = np.cumsum([0, *(gap + 25 for gap in gaps)]).tolist()
    line = marks(*((left, left + 25) for left in lefts))
    assert (
        Reading([line], Ink(np.zeros((1, 1), np.float32), True), np.zeros((1, 1), np.uint8)).text
        == text
    )


def test_what_lies_around_the_digit_or_comes_in_from_the_edge_is_not_the_one(digit_images):
    page = Image.new("L", (900, 700), 235)
    page.paste(
        30,
        (380, 280),
        Image.fromarray(digit_images[4]).resize((150, 150), Image.Resampling.BICUBIC),
    )
    ring = page.copy()
    ImageDraw.Draw(ring).ellipse((310, 200, 600, 510), outline=40, width=10)
    pen = page.copy()
    ImageDraw.Draw(pen).line((700, 0, 720, 500), fill=40, width=22)
    for picture in (page, ring, pen):
        digit = read_digit(picture).digit
        assert digit.label == "4" and 370 < digit.box[0] < digit.box[2] < 540


def test_nothing_is_no_digit():
    for empty in (
        np.zeros((300, 400), np.uint8),
        np.full((300, 400), 255, np.uint8),
        np.zeros((28, 28), np.uint8),
        np.zeros((1, 1), np.uint8),
    ):
        reading = read_digit(empty)
        digit = reading.digit
        assert digit is None and reading.text == "" and read_digits(empty).lines == []


def test_mnist_images_are_read_as_they_come(mnist):
    files = sorted((mnist / "testing").glob("*/*.png"))[::100]
    right = [read_digit(f).digit for f in files]
    assert (
        np.mean(
            [d is not None and d.guess == f.parent.name for d, f in zip(right, files, strict=True)]
        )
        >= 0.98
    )


def test_synthetic_photos(mnist):
    files = sorted((mnist / "training").glob("*/*.png"))[::1000]
    rng = np.random.default_rng(5)
    digits = [
        read_digit(synthetic_photo(np.asarray(Image.open(f))[None], rng, (800, 600)).image).digit
        for f in files
    ]
    assert (
        np.mean(
            [d is not None and d.guess == f.parent.name for d, f in zip(digits, files, strict=True)]
        )
        >= 0.85
    )


def test_another_network_may_read(digit_images):
    packed = Predictor.packed()
    strict = Predictor(packed.network, packed.vocab, packed.no_digit, threshold=1.1)
    reading = read_digits(sheet(digit_images, "42"), strict)
    assert (
        reading.text == "??"
        and {d.answer for d in reading.lines[0]} == {"unsure"}
        and reading.digits == []
    )


def test_a_picture_that_falls_into_thousands_of_parts_does_not_keep_others_waiting(monkeypatch):
    combs, asked = np.full((600, 600), 255, np.uint8), []
    for top in range(5, 584, 16):
        combs[top:top + 2, 5:595] = 0
        for left in range(5, 592, 7):
            combs[top:top + 8, left:left + 3] = 0
    predictor = Predictor.packed()
    chances = Predictor.chances
    monkeypatch.setattr(
        Predictor,
        "chances",
        lambda self, images: asked.append(len(images)) or chances(self, images),
    )
    reading = read_digits(combs, predictor, ink="drawing")
    assert (
        reading.lines
        and sum(map(len, reading.lines)) <= MOST_PIECES
        and sum(asked) <= MOST_PARTS * MOST_PIECES
    )


def test_bad_picture_is_named(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(BadImage, match="a.png"):
        read_digits(tmp_path / "a.png")


def test_command_line(run_cli, digit_images, tmp_path):
    sheet(digit_images, "42").save(tmp_path / "my photo é.png")
    code, out, err = run_cli(
        "read", "my photo é.png", "--boxes", "boxes.png", "--steps", "steps.png"
    )
    assert (code, err) == (0, "") and out.startswith("my photo é.png  42  ") and out.count("%") == 2
    assert (
        Image.open(tmp_path / "boxes.png").size == (1000, 210)
        and Image.open(tmp_path / "steps.png").size[0] > 900
    )
    code, out, err = run_cli("read", "--json", "my photo é.png")
    assert json.loads(out)[0]["text"] == "42" and len(json.loads(out)[0]["lines"][0][0]["box"]) == 4
    sheet(digit_images, "8").save(tmp_path / "8.png")
    (tmp_path / "bad.png").write_text("no image")
    code, out, err = run_cli("predict", "bad.png", "8.png", "absent.png")
    assert (
        code == 1
        and out.startswith("8.png  8  ")
        and err.count("\n") == 2
        and "Traceback" not in err
    )
    assert json.loads(run_cli("predict", "--json", "8.png")[1])[0]["answer"] == "8"
    Image.new("L", (200, 200), 255).save(tmp_path / "empty.png")
    assert run_cli("predict", "empty.png")[1] == "empty.png  no digit\n"
    code, out, err = run_cli("read", "8.png", "empty.png", "--steps", "s.png")
    assert code == 1 and "one picture" in err


def test_figures_are_checked_before_anything_is_drawn(digit_images, tmp_path):
    from digitfast.errors import BadSetting
    with pytest.raises(BadSetting, match=".png"):
        check_figures(["a.png"], tmp_path / "steps.jpg")
    page = sheet(digit_images, "6")
    reading = read_digits(page)
    draw_boxes(page, reading, tmp_path / "b.png")
    draw_steps(reading, tmp_path / "s.png")
    drawn = np.asarray(Image.open(tmp_path / "b.png"))
    assert (
        drawn.shape == (210, 1000, 3) and (drawn[..., 1] > drawn[..., 0] + 40).any()
    )  # a green box
    assert np.asarray(Image.open(tmp_path / "s.png")).std() > 20


@pytest.mark.parametrize("other", ["my-run", torch.nn.Linear(1, 1)], ids=["name", "network"])
def test_what_is_no_predictor_is_named(other):
    with pytest.raises(BadSetting, match="predictor must be a Predictor, not .*predictor_of"):
        read_digits(np.zeros((99, 99), np.uint8), other)


@pytest.mark.parametrize("path", ["x", "x.txt", None, "absent/x.png"])
def test_figures_are_png_files(path):
    reading = read_digits(np.full((99, 99), 255, np.uint8))
    reason = "must be written to a .png in an existing folder, not"
    with pytest.raises(BadSetting, match=reason):
        draw_boxes(reading.grey, reading, path)
    with pytest.raises(BadSetting, match=reason):
        draw_steps(reading, path)
