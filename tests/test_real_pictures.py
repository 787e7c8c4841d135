"""The table of real pictures: a folder with its truth, and how well it is read."""
import numpy as np
import pytest
from PIL import Image

from digitfast import Predictor
from digitfast.errors import BadData, BadImage
from digitfast.evaluation.real_pictures import evaluate_real_pictures, real_pictures

HEAD = "set\tkind\tsource\ttruth\tfile"


def write_truth(folder, *rows: str) -> None:
    (folder / "truth.tsv").write_text("\n".join([HEAD, *rows]) + "\n", encoding="utf-8")


@pytest.fixture
def pictures(tmp_path, mnist):
    "Two drawings of one digit, of which the truth of one is wrong, and a row of three digits."
    digits = [np.asarray(Image.open(sorted((mnist / f"testing/{label}").glob("*.png"))[0]))
              for label in (1, 7, 4)]
    row = np.full((100, 300), 255, np.uint8)
    for i, digit in enumerate(digits):
        enlarged = Image.fromarray(255 - digit).resize((84, 84), Image.Resampling.BICUBIC)
        row[8:92, 100 * i + 8:100 * i + 92] = np.asarray(enlarged)
    Image.fromarray(row).save(tmp_path / "row.png")
    Image.fromarray(row[:, 100:200]).save(tmp_path / "7.png")
    Image.fromarray(row[:, 200:]).save(tmp_path / "4.png")
    write_truth(tmp_path, "single\tdrawing\tme\t7\t7.png", "single\tphoto\tme\t9\t4.png",
                "multi\trow\tme\t174\trow.png")
    return tmp_path


def table_of(folder) -> list[list[str]]:
    lines: list[str] = []
    evaluate_real_pictures(Predictor.packed(), folder, lines.append)
    return [line.split() for line in lines]


def test_a_line_for_all_and_for_each_kind(pictures):
    table = table_of(pictures)
    assert [row[0] for row in table] == ["one", "all", "drawing", "photo", "several", "all"]


def test_a_single_digit_is_right_wrong_or_wrong_and_sure(pictures):
    _, everything, drawing, photo, *_ = table_of(pictures)
    assert everything[1:] == ["2", "50.00%", "50.00%", "50.00%", "50.00%"]
    assert drawing[1:] == ["1", "100.00%", "100.00%", "0.00%", "0.00%"]
    assert photo[1:] == ["1", "0.00%", "0.00%", "100.00%", "100.00%"]


def test_digits_in_a_row_count_by_edit_distance(pictures):
    assert table_of(pictures)[-1][1:] == ["1", "3", "100.00%", "100.00%"]
    write_truth(pictures, "multi\trow\tme\t17/4\trow.png", "multi\trow\tme\t1749\trow.png")
    assert table_of(pictures)[-1][1:] == ["2", "7", "85.71%", "0.00%"]


@pytest.mark.parametrize(("row", "message"), [
    ("one\tphoto\tme\t7\t7.png", "line 2: set must be single or multi, not 'one'"),
    ("single\tphoto\tme\tseven\t7.png", "truth must be digits, with / between lines, not 'seven'"),
    ("single\tphoto\tme\t7\t", "must not be empty; file is"),
    ("single\tphoto", "must not be empty; truth, file is"),
    ("single\tphoto\tme\t7\t../7.png", "must lie within the folder, not '../7.png'"),
    ("single\tphoto\tme\t7\t/etc/passwd", "must lie within the folder"),
])
def test_a_row_that_is_wrong_is_named(tmp_path, row, message):
    write_truth(tmp_path, row)
    with pytest.raises(BadData, match=message):
        real_pictures(tmp_path)


def test_a_folder_without_truth(tmp_path):
    with pytest.raises(BadData, match=r"truth.tsv cannot be read: No such file .* columns set, "):
        real_pictures(tmp_path)


def test_a_truth_without_rows(tmp_path):
    write_truth(tmp_path)
    with pytest.raises(BadData, match="names no pictures"):
        real_pictures(tmp_path)


def test_a_picture_that_is_missing_is_named(tmp_path):
    write_truth(tmp_path, "single\tphoto\tme\t7\tgone.png")
    with pytest.raises(BadImage, match=r"gone\.png"):
        table_of(tmp_path)
