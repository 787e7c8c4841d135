"""A region of a picture, and a number whose digits have been counted."""
import numpy as np
import pytest
import torch
from PIL import Image

from digitfast import read_digits
from digitfast.data.pictures import cut_region
from digitfast.errors import BadImage, BadSetting

#: A picture of 40 × 20 pixels; no two of a line are alike, and no two of a column.
SLOPE = (np.arange(40)[None] * 2 + np.arange(20)[:, None] * 8).astype(np.uint8)


@pytest.mark.parametrize("region, left, top, right, bottom", [
    ((4, 3, 10, 6), 4, 3, 14, 9), ([0, 0, 40, 20], 0, 0, 40, 20), ((39, 19, 1, 1), 39, 19, 40, 20),
    ((0, 0, 2, 1), 0, 0, 2, 1), ((4.4, 2.6, 10.0, 6.2), 4, 3, 14, 9),
    (np.array([4, 3, 10, 6]), 4, 3, 14, 9),
    ((0.5, 0, 0.5, 0.25), 20, 0, 40, 5), ((0, 0, 1, 1), 0, 0, 40, 20),
    ((0.25, 0.1, 0.1, 0.5), 10, 2, 14, 12), ((0.0, 0.95, 1.0, 0.05), 0, 19, 40, 20)], ids=str)
def test_pixels_of_a_region(region, left, top, right, bottom):
    cut, corner = cut_region(SLOPE, region)
    assert np.array_equal(cut, SLOPE[top:bottom, left:right])
    assert corner == (left, top)


@pytest.mark.parametrize("side", range(2, 12))
def test_both_halves_fit_into_any_picture(side):
    picture = np.zeros((side, side), np.uint8)
    first, _ = cut_region(picture, (0, 0, 0.5, 0.5))
    second, (left, top) = cut_region(picture, (0.5, 0.5, 0.5, 0.5))
    assert (left + second.width, top + second.height) == (side, side)
    assert (first.width, first.height) == (left, top)


@pytest.mark.parametrize("form", [
    lambda x: x, Image.fromarray, torch.from_numpy, lambda x: x / 255,
    lambda x: Image.fromarray(x).convert("RGB")], ids=["array", "PIL", "torch", "float", "colour"])
def test_a_region_of_a_picture_in_any_form(form):
    assert np.array_equal(cut_region(form(SLOPE), (4, 3, 10, 6))[0], SLOPE[3:9, 4:14])


def test_a_region_of_a_file(tmp_path):
    Image.fromarray(SLOPE).save(tmp_path / "x.png")
    assert np.array_equal(cut_region(tmp_path / "x.png", (4, 3, 10, 6))[0], SLOPE[3:9, 4:14])


def test_a_region_is_of_the_picture_upright(tmp_path):
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(SLOPE).save(tmp_path / "x.png", exif=exif)
    upright = np.rot90(SLOPE, -1)
    assert np.array_equal(cut_region(tmp_path / "x.png", (3, 4, 6, 10))[0], upright[4:14, 3:9])


def test_a_region_keeps_all_pixels_of_a_large_picture():
    large = np.zeros((2000, 3000), np.uint8)
    large[900:1000, 2000:2300] = np.random.default_rng(0).integers(0, 256, (100, 300))
    cut, _ = cut_region(large, (2000, 900, 300, 100))
    assert np.array_equal(cut, large[900:1000, 2000:2300])


@pytest.mark.parametrize("region, given", [
    ((0, 0, 41, 20), "0,0,41,20"), ((0, 1, 40, 20), "0,1,40,20"), ((-1, 0, 5, 5), "-1,0,5,5"),
    ((0, 0, 0, 5), "0,0,0,5"), ((0, 0, 5, -5), "0,0,5,-5"), ((40, 0, 1, 1), "40,0,1,1"),
    ((0.5, 0, 0.6, 1), "0.5,0,0.6,1"), ((1, 1, 1, 1), "1,1,1,1"), ((0, 0, 0.001, 1), "0,0,0.001,1"),
    ((0.5, 0, 20, 10, 3), r"\(0.5, 0, 20, 10, 3\)"), ((1, 2, 3), r"\(1, 2, 3\)"),
    ("0,0,5,5", "'0,0,5,5'")], ids=str)
def test_regions_that_are_none(region, given):
    words = rf"left,top,width,height within 40 × 20 pixels, or parts .*; not {given}$"
    with pytest.raises((BadImage, BadSetting), match=words) as error:
        cut_region(SLOPE, region)
    assert "\n" not in str(error.value)


def test_a_region_of_no_picture(tmp_path):
    (tmp_path / "x.png").write_text("no picture")
    with pytest.raises(BadImage, match="x.png"):
        cut_region(tmp_path / "x.png", (0, 0, 1, 1))


STEP = 100  # from one digit of a row to the next
LINE = 150  # from one row to the next


@pytest.fixture
def sheet(digits):
    "Draws numbers, each on a line of its own, in dark ink on light paper."
    def drawn(*numbers):
        page = Image.new("L", (20 + STEP * max(map(len, numbers)), 40 + LINE * len(numbers)), 235)
        for row, number in enumerate(numbers):
            for i, digit in enumerate(number):
                small = Image.open(digits / f"testing/{digit}/37.png")
                ink = small.resize((112, 112), Image.Resampling.BICUBIC)
                page.paste(30, (10 + STEP * i, 40 + LINE * row), ink)
        return page
    return drawn


@pytest.fixture
def touching(digits):
    "Draws a number whose digits overlap by so many pixels."
    def drawn(number, overlap):
        page, left = Image.new("L", (60 + 112 * len(number), 190), 235), 30
        for digit in number:
            small = Image.open(digits / f"testing/{digit}/37.png")
            ink = small.resize((112, 112), Image.Resampling.BICUBIC)
            ink = ink.crop(ink.point(lambda value: 255 * (value > 100)).getbbox())
            page.paste(30, (left, 40), ink)
            left += ink.width - overlap
        return page
    return drawn


def guesses(reading):
    return ["".join(digit.guess for digit in line) for line in reading.lines]


@pytest.mark.parametrize("region, text", [
    ((0, LINE, 420, LINE + 40), "5926"), ((0, 0, 420, LINE + 20), "3141"),
    ((2 * STEP + 10, 0, 210, LINE + 20), "41"), ((0, 0.5, 0.5, 0.5), "59"),
    ((0, 0, 1, 1), "3141\n5926")], ids=str)
def test_only_the_digits_of_the_region_are_read(sheet, region, text):
    assert read_digits(sheet("3141", "5926"), region=region).text == text


def boxes(reading):
    return np.array([digit.box for line in reading.lines for digit in line])


@pytest.mark.parametrize("region", [
    (2 * STEP + 10, LINE, 2 * STEP, LINE + 40), (0.5, 0.5, 0.5, 0.5)], ids=["pixels", "parts"])
def test_boxes_are_in_pixels_of_the_whole_picture(sheet, region):
    page = sheet("3141", "5926")
    expected = boxes(read_digits(page))[-2:]
    assert np.abs(boxes(read_digits(page, region=region)) - expected).max() <= 2


def test_the_most_prominent_digit_has_such_a_box_too(sheet):
    reading = read_digits(sheet("3141", "5926"), region=(3 * STEP + 10, LINE, STEP, LINE + 40))
    assert reading.digit.label == "6"
    assert reading.digit.box == reading.lines[0][0].box


def test_signs_have_such_boxes_too(sheet):
    page = sheet("3141", "5926")
    point = (STEP + 5, LINE + 122, STEP + 17, LINE + 134)
    page.paste(30, point)
    reading = read_digits(page, region=(0, LINE, 420, LINE + 40))
    (sign,), = reading.signs
    assert reading.text == "5.926"
    assert np.abs(np.subtract(sign.box, point)).max() <= 3


def test_a_region_of_a_large_picture(sheet):
    page = Image.new("L", (4000, 3000), 235)
    page.paste(sheet("42"), (3000, 2000))
    reading = read_digits(page, region=(3000, 2000, 220, 190))
    assert reading.text == "42"
    left, top, right, bottom = reading.lines[0][0].box
    assert 3010 <= left < right <= 3122 and 2040 <= top < bottom <= 2152


def test_a_region_without_ink_holds_no_digits(sheet):
    reading = read_digits(sheet("31"), region=(0, 0, 220, 35))
    assert reading.lines == [] and reading.digit is None and reading.text == ""


@pytest.mark.parametrize("number", ["8", "42", "507", "3141", "9182736450"])
def test_a_number_of_known_length(sheet, number):
    assert read_digits(sheet(number), n_digits=len(number)).text == number


@pytest.mark.parametrize("number, overlap", [("111", 8), ("117", 4), ("10", 4)])
def test_a_known_length_tells_digits_that_touch_apart(touching, number, overlap):
    page = touching(number, overlap)
    assert guesses(read_digits(page)) != [number]
    assert guesses(read_digits(page, n_digits=len(number))) == [number]


@pytest.mark.parametrize("number", ["8", "42", "3141"])
def test_of_a_number_one_digit(sheet, number):
    reading = read_digits(sheet(number), n_digits=1)
    assert [len(line) for line in reading.lines] == [1]


def test_a_number_is_never_longer_than_is_known(sheet):
    for n in (1, 2, 3, 4):
        line, = read_digits(sheet("3141"), n_digits=n).lines
        assert len(line) == n


def test_a_number_with_too_few_marks_is_as_long_as_can_be(sheet):
    line, = read_digits(sheet("42"), n_digits=30).lines
    assert 2 <= len(line) < 30


@pytest.mark.parametrize("n, text", [(2, "42"), (4, "5926")])
@pytest.mark.parametrize("numbers", [("42", "5926"), ("5926", "42")], ids=" ".join)
def test_of_several_lines_the_one_of_that_length(sheet, numbers, n, text):
    assert read_digits(sheet(*numbers), n_digits=n).text == text


def test_a_number_of_known_length_in_a_region(sheet):
    reading = read_digits(sheet("3141", "5926"), region=(0, LINE, 210, LINE + 40), n_digits=2)
    assert reading.text == "59"
    assert all(digit.box[1] > LINE for digit in reading.lines[0])


def test_an_empty_field_holds_no_number():
    assert read_digits(np.full((99, 300), 255, np.uint8), n_digits=4).lines == []


@pytest.mark.parametrize("n", [0, -1])
def test_a_number_has_a_digit(sheet, n):
    with pytest.raises(BadSetting, match=f"a whole number of at least 1, not {n}$"):
        read_digits(sheet("8"), n_digits=n)
