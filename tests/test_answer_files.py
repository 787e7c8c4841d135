"""Answers as CSV files, and tables with a picture in each row."""
import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import is_one_line
from PIL import Image
from test_array_files import KAGGLE, LABELS, PIXELS, write_table

from digitfast import Predictor, save_predictor
from digitfast.errors import BadData, BadSetting
from digitfast.reading.answer_files import (
    check_csv,
    write_digits,
    write_numbers,
    write_submission,
)
from digitfast.reading.answers import predict_pictures

DIGIT = {"file": "a.png", "answer": "4", "digit": "4", "guess": "4", "probability": 0.98765,
         "no_digit": 0.00004, "probabilities": {"4": 0.98765}, "box": [1, 2, 30, 40]}
UNSURE = {**DIGIT, "file": "b, c.png", "answer": "unsure", "digit": None, "guess": "9"}
NONE = {"file": "empty.png", "answer": "no digit", "digit": None}
BROKEN = {"file": "x.png", "error": "x.png cannot be read"}


def rows(file):
    with open(file, newline="", encoding="utf-8") as text:
        return list(csv.DictReader(text))


def enlarged(digits, digit):
    "A small digit as a drawing of 224×224 pixels, dark on light."
    small = 255 - np.asarray(Image.open(digits / f"testing/{digit}/36.png"))
    return Image.fromarray(np.kron(small, np.ones((8, 8), np.uint8)))


@pytest.fixture
def folder(digits, tmp_path):
    "An empty folder but for a 4, a 7, an empty picture and a broken one."
    for digit in (4, 7):
        enlarged(digits, digit).save(tmp_path / f"{digit}.png")
    Image.new("L", (200, 200), 255).save(tmp_path / "empty.png")
    (tmp_path / "broken.png").write_text("no picture")
    return tmp_path


@pytest.fixture
def table(digits, tmp_path):
    "A test.csv with a 4 and a 7, and the names of its columns."
    files = [digits / f"testing/{digit}/36.png" for digit in (4, 7)]
    lines = [KAGGLE, *(np.asarray(Image.open(file)).ravel().tolist() for file in files)]
    (tmp_path / "test.csv").write_text("".join(",".join(map(str, row)) + "\n" for row in lines))
    return tmp_path / "test.csv"


def test_a_row_for_each_picture(tmp_path):
    write_digits([DIGIT, UNSURE], tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == (
        "file,answer,digit,guess,probability,no_digit,left,top,right,bottom,error\n"
        "a.png,4,4,4,0.9877,0.0000,1,2,30,40,\n"
        '"b, c.png",unsure,,9,0.9877,0.0000,1,2,30,40,\n')


def test_a_picture_without_a_digit_has_a_row_of_its_own(tmp_path):
    write_digits([NONE, DIGIT], tmp_path / "a.csv")
    first = rows(tmp_path / "a.csv")[0]
    assert {name for name, value in first.items() if value} == {"file", "answer"}


def test_an_error_is_in_its_row(tmp_path):
    write_digits([BROKEN, DIGIT], tmp_path / "a.csv")
    assert [row["error"] for row in rows(tmp_path / "a.csv")] == ["x.png cannot be read", ""]


def test_no_answers_are_a_table_without_rows(tmp_path):
    write_digits([], tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text().startswith("file,answer,")
    assert rows(tmp_path / "a.csv") == []


@pytest.mark.parametrize("name", [
    "zwölf 数字.png", 'a "b",c.png', "no utf-8 \udcff.png"], ids=ascii)
def test_any_name_comes_back(tmp_path, name):
    write_digits([{**DIGIT, "file": name}], tmp_path / "a.csv")
    with open(tmp_path / "a.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        assert next(csv.DictReader(file))["file"] == name


LINES = {"file": "p.png", "text": "31\n5", "signs": [[], []], "lines": [
    [{"digit": "3", "guess": "3", "probability": 0.9, "box": [10, 22, 30, 60]},
     {"digit": "1", "guess": "1", "probability": 0.75, "box": [40, 20, 45, 58]}],
    [{"digit": "5", "guess": "5", "probability": 1.0, "box": [11, 80, 31, 120]}]]}


def test_a_row_for_each_line_of_digits(tmp_path):
    write_numbers([LINES], tmp_path / "n.csv")
    assert (tmp_path / "n.csv").read_text() == (
        "file,line,text,probability,left,top,right,bottom,error\n"
        "p.png,1,31,0.7500,10,20,45,60,\n"
        "p.png,2,5,1.0000,11,80,31,120,\n")


def test_a_picture_without_lines_has_a_row(tmp_path):
    write_numbers([{"file": "p.png", "text": "", "lines": [], "signs": []}, LINES, BROKEN],
                  tmp_path / "n.csv")
    found = [(row["file"], row["line"], row["text"], row["error"])
             for row in rows(tmp_path / "n.csv")]
    assert found == [("p.png", "", "", ""), ("p.png", "1", "31", ""), ("p.png", "2", "5", ""),
                     ("x.png", "", "", "x.png cannot be read")]


def test_a_submission_has_the_likeliest_classes(tmp_path):
    write_submission([DIGIT, UNSURE], tmp_path / "s.csv")
    assert (tmp_path / "s.csv").read_text() == "ImageId,Label\n1,4\n2,9\n"


@pytest.mark.parametrize("answer, problem", [
    (BROKEN, "each image: x.png cannot be read"), (NONE, "each image: empty.png shows no digit")],
    ids=["broken", "no digit"])
def test_a_submission_with_a_gap_is_not_written(tmp_path, answer, problem):
    with pytest.raises(BadData, match=problem):
        write_submission([DIGIT, answer], tmp_path / "s.csv")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.csv", "A.CSV"])
def test_a_new_csv_may_be_written(tmp_path, name):
    check_csv(tmp_path / name)
    check_csv(str(tmp_path / name))


@pytest.mark.parametrize("name", ["a", "a.txt", "a.csv.gz", "absent/a.csv", ""])
def test_what_is_no_csv_in_a_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadSetting, match="must be written to a .csv in an existing folder, not '"):
        check_csv(name)


@pytest.mark.parametrize("write", [write_digits, write_numbers, write_submission])
def test_nothing_is_overwritten(tmp_path, write):
    (tmp_path / "a.csv").write_text("mine")
    with pytest.raises(BadSetting, match="a.csv exists; choose another name"):
        write([], tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "mine"


def test_a_file_that_fails_leaves_nothing(tmp_path):
    def answers():
        yield DIGIT
        raise RuntimeError
    with pytest.raises(RuntimeError):
        write_digits(answers(), tmp_path / "a.csv")
    assert not list(tmp_path.iterdir())


def test_each_row_of_a_table_is_a_picture(table):
    answers = predict_pictures([table])
    assert [(answer["file"], answer["digit"]) for answer in answers] == [
        (f"{table}:1", "4"), (f"{table}:2", "7")]


def test_rows_are_answered_as_the_network_is(tmp_path):
    predictor = Predictor.packed()
    answers = predict_pictures(write_table(tmp_path / "test.csv", KAGGLE, labels=None), predictor)
    found = np.array([list(answer["probabilities"].values()) for answer in answers])
    assert np.allclose(found, predictor.chances(PIXELS)[:, :-1], atol=1e-6)


def test_labels_of_a_table_are_no_pixels(tmp_path):
    bare = predict_pictures([write_table(tmp_path / "test.csv", KAGGLE, labels=None)])
    labelled = predict_pictures([write_table(tmp_path / "train.csv", ["label", *KAGGLE], LABELS)])
    assert [a["probabilities"] for a in labelled] == [a["probabilities"] for a in bare]


def test_a_table_of_another_size_is_scaled(digits, tmp_path):
    small = Image.open(digits / "testing/4/36.png").resize((14, 14), Image.Resampling.BOX)
    (tmp_path / "small.csv").write_text(",".join(map(str, small.tobytes())) + "\n")
    answer, = predict_pictures([tmp_path / "small.csv"])
    assert answer["guess"] == "4"


@pytest.mark.parametrize("text", ["", "label,a,b\n1,2,3\n", "a,b,c,d\n1,2,3,999\n"])
def test_a_damaged_table_is_one_error(table, tmp_path, text):
    (tmp_path / "damaged.csv").write_text(text)
    damaged, *others = predict_pictures([tmp_path / "damaged.csv", table])
    assert set(damaged) == {"file", "error"}
    assert damaged["error"].startswith(damaged["file"])
    assert [answer["digit"] for answer in others] == ["4", "7"]


def test_a_table_that_is_absent_is_one_error(tmp_path):
    answer, = predict_pictures([tmp_path / "absent.csv"])
    assert "No such file" in answer["error"]


def test_predict_writes_a_table_and_prints_no_answers(run_cli, folder):
    code, out, err = run_cli("predict", "4.png", "7.png", "--csv", "answers.csv")
    assert (code, out, err) == (0, "2 answers in answers.csv\n", "")
    found = [(row["file"], row["digit"]) for row in rows(folder / "answers.csv")]
    assert found == [("4.png", "4"), ("7.png", "7")]


def test_a_table_says_what_predict_prints(run_cli, folder):
    printed = json.loads(run_cli("predict", "4.png", "--json")[1])[0]
    run_cli("predict", "4.png", "--csv", "answers.csv")
    row, = rows(folder / "answers.csv")
    assert row["probability"] == f"{printed['probability']:.4f}"
    assert [row[side] for side in ("left", "top", "right", "bottom")] == [
        str(side) for side in printed["box"]]


def test_json_may_be_printed_beside_a_table(run_cli, folder):
    code, out, _ = run_cli("predict", "4.png", "--json", "--csv", "answers.csv")
    assert code == 0 and json.loads(out)[0]["digit"] == rows(folder / "answers.csv")[0]["digit"]


@pytest.mark.parametrize("command, column", [("predict", "answer"), ("read", "text")])
def test_a_broken_picture_has_a_row_with_its_error(run_cli, folder, command, column):
    code, out, err = run_cli(command, "broken.png", "4.png", "--csv", "answers.csv")
    assert code == 1 and is_one_line(err)
    broken, good = rows(folder / "answers.csv")
    assert (broken["file"], broken[column]) == ("broken.png", "")
    assert broken["error"] in err and good["error"] == ""
    assert good[column] == "4"


def test_read_writes_a_table(run_cli, folder, digits):
    page = Image.new("L", (470, 250), 255)
    page.paste(enlarged(digits, 4), (0, 10))
    page.paste(enlarged(digits, 7), (130, 10))
    page.save(folder / "47.png")
    code, out, err = run_cli("read", "47.png", "empty.png", "--csv", "numbers.csv")
    assert (code, out, err) == (0, "2 answers in numbers.csv\n", "")
    number, empty = rows(folder / "numbers.csv")
    assert (number["line"], number["text"]) == ("1", "47")
    assert (empty["file"], empty["line"], empty["text"]) == ("empty.png", "", "")


def test_predict_of_a_table_prints_a_line_for_each_row(run_cli, table):
    code, out, err = run_cli("predict", "test.csv")
    assert (code, err) == (0, "")
    assert [line.split("  ")[:2] for line in out.splitlines()] == [
        ["test.csv:1", "4"], ["test.csv:2", "7"]]


def test_predict_writes_a_submission(run_cli, table, tmp_path):
    code, out, err = run_cli("predict", "test.csv", "--submission", "submission.csv")
    assert (code, out, err) == (0, "2 answers in submission.csv\n", "")
    assert (tmp_path / "submission.csv").read_text() == "ImageId,Label\n1,4\n2,7\n"


def test_a_submission_and_a_table_in_one_call(run_cli, table, tmp_path):
    code, _, err = run_cli("predict", "test.csv", "--submission", "s.csv", "--csv", "a.csv")
    assert (code, err) == (0, "")
    assert [row["Label"] for row in rows(tmp_path / "s.csv")] == ["4", "7"]
    assert [row["file"] for row in rows(tmp_path / "a.csv")] == ["test.csv:1", "test.csv:2"]


def test_another_network_answers_for_a_table(run_cli, table, tmp_path):
    letters = replace(Predictor.packed(), vocab=list("abcdefghij"))
    save_predictor(letters, tmp_path / "letters.safetensors")
    run_cli("predict", "letters.safetensors", "test.csv", "--csv", "a.csv")
    assert [row["digit"] for row in rows(tmp_path / "a.csv")] == ["e", "h"]


@pytest.mark.parametrize("picture, problem", [
    ("empty.png", "empty.png shows no digit"), ("broken.png", "broken.png cannot be read")])
def test_a_submission_needs_an_answer_for_each_picture(run_cli, folder, picture, problem):
    code, out, err = run_cli("predict", "4.png", picture, "--submission", "s.csv")
    assert code == 1 and out == ""
    assert f"no submission without an answer to each image: {problem}" in err
    assert not (folder / "s.csv").exists()


@pytest.mark.parametrize("command, option", [
    ("predict", "--csv"), ("predict", "--submission"), ("read", "--csv")])
@pytest.mark.parametrize("file, problem", [
    ("there.csv", "there.csv exists"), ("a.txt", "existing folder, not 'a.txt'"),
    ("absent/a.csv", "existing folder, not 'absent/a.csv'")])
def test_where_a_table_cannot_be_written_nothing_is_read(
        run_cli, folder, command, option, file, problem):
    (folder / "there.csv").write_text("mine")
    code, out, err = run_cli(command, "absent.png", option, file)
    assert (code, out) == (1, "") and is_one_line(err)
    assert problem in err and "absent.png" not in err
    assert (folder / "there.csv").read_text() == "mine"
