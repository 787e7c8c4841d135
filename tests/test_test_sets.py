import numpy as np
import pytest
from PIL import Image

from digitfast import Predictor
from digitfast.errors import BadData
from digitfast.evaluation.evaluate import answer_pictures, evaluate_pictures
from digitfast.evaluation.other_sets import edit_distance, font_digits


def test_edit_distance():
    assert [edit_distance(a, b) for a, b in (("", ""), ("123", "123"), ("123", "13"), ("9", "10"), ("", "42"))] == [
        0, 0, 1, 2, 2]


def test_as_it_comes_and_through_the_form(mnist):
    files = sorted((mnist / "testing").glob("*/*.png"))[::250]
    pictures = [255 - np.asarray(Image.open(f)) for f in files]  # dark on light: not as the network knows it
    labels = [int(f.parent.name) for f in files]
    answers = answer_pictures(Predictor.packed(), pictures, labels)
    read, as_is = ((c[:, :-1].argmax(1) == labels).mean() for c in (answers.chances, answers.as_is))
    assert read >= 0.95 > 0.5 > as_is


def test_class_folders(digits, tmp_path):
    evidence = evaluate_pictures(Predictor.packed(), digits / "testing")
    assert evidence.n == 120 and evidence.accuracy > 0.9 and evidence.loss < 1
    with pytest.raises(BadData, match="no class folders"):
        evaluate_pictures(Predictor.packed(), tmp_path)
    (tmp_path / "x").mkdir()
    Image.new("L", (28, 28)).save(tmp_path / "x/1.png")
    with pytest.raises(BadData, match="does not know: x"):
        evaluate_pictures(Predictor.packed(), tmp_path)


def test_digits_of_a_font():
    import matplotlib
    font = matplotlib.get_data_path() + "/fonts/ttf/DejaVuSans.ttf"
    drawn = list(font_digits([font]))
    assert len(drawn) == 30 and [label for _, label in drawn[:10]] == list(range(10))
    assert all(np.asarray(page).min() < 60 for page, _ in drawn)
