"""Evaluation on class folders, and the sets beyond MNIST."""
import numpy as np
import pytest
from PIL import Image

from digitfast import Predictor
from digitfast.errors import BadData
from digitfast.evaluation.evaluate import answer_pictures, evaluate_pictures
from digitfast.evaluation.other_sets import font_digits


def test_dark_digits_are_read_in_mnists_form_but_not_as_they_come(mnist):
    files = sorted((mnist / "testing").glob("*/*.png"))[::250]
    pictures = [255 - np.asarray(Image.open(file)) for file in files]  # dark on light: unlike MNIST
    labels = [int(file.parent.name) for file in files]
    answers = answer_pictures(Predictor.packed(), pictures, labels)
    assert (answers.chances[:, :-1].argmax(1) == labels).mean() >= 0.95
    assert (answers.as_is[:, :-1].argmax(1) == labels).mean() < 0.5


def test_class_folders(digits):
    evidence = evaluate_pictures(Predictor.packed(), digits / "testing")
    assert evidence.n == 120
    assert evidence.accuracy > 0.9
    assert evidence.loss < 1


def test_a_folder_without_class_folders(tmp_path):
    with pytest.raises(BadData, match="no class folders"):
        evaluate_pictures(Predictor.packed(), tmp_path)


def test_an_unknown_class_is_named(tmp_path):
    (tmp_path / "x").mkdir()
    Image.new("L", (28, 28)).save(tmp_path / "x/1.png")
    with pytest.raises(BadData, match="does not know: x"):
        evaluate_pictures(Predictor.packed(), tmp_path)


def test_digits_of_a_font():
    import matplotlib
    font = matplotlib.get_data_path() + "/fonts/ttf/DejaVuSans.ttf"
    drawn = list(font_digits([font]))
    assert [label for _, label in drawn] == 3 * list(range(10))
    assert all(np.asarray(page).min() < 60 for page, _ in drawn)
