"""Results on a few labelled images, worked out by hand: right, sure, refused and not found."""
import numpy as np
import pytest

from digitfast.evaluation.accuracy import (
    Evidence,
    accuracy_interval,
    count_confusion,
    edit_distance,
    evidence_of,
    is_found,
    sure_answers,
)

#: Probabilities of the classes "a" and "b", and of "no digit".
CHANCES = np.array([
    [0.9, 0.05, 0.05],
    [0.4, 0.3, 0.3],
    [0.2, 0.7, 0.1],
    [0.1, 0.2, 0.7],
    [0.0, 0.0, 1.0]])
LABELS = np.array([0, 1, 0, 1, 0])


def test_accuracy_and_mistakes_of_a_confusion_matrix():
    confusion = np.array([[5, 0, 1], [0, 4, 0], [2, 0, 8]])
    evidence = Evidence(vocab=["0", "1", "2"], confusion=confusion, loss=0.1)
    assert evidence.n == 20
    assert evidence.accuracy == pytest.approx(17 / 20)
    assert evidence.most_confused() == [("2", "0", 2), ("0", "2", 1)]


def test_the_rows_of_a_confusion_matrix_are_the_actual_classes():
    assert count_confusion(np.array([0, 0, 1]), np.array([1, 1, 1]), 2).tolist() == [[0, 2], [0, 1]]


def test_interval_is_the_published_one():
    low, high = accuracy_interval(9950, 10_000)
    assert low == pytest.approx(0.9934, abs=1e-4)  # about ±0.14 points
    assert high == pytest.approx(0.9962, abs=1e-4)
    assert accuracy_interval(10, 10)[1] == 1


def test_where_nothing_is_found_no_class_is_guessed():
    evidence = evidence_of(CHANCES, LABELS, ["a", "b"], threshold=0.6)
    assert is_found(CHANCES).tolist() == [True, True, True, True, False]
    assert evidence.confusion.tolist() == [[1, 1], [1, 1]]
    assert evidence.not_found == (1, 0)
    assert (evidence.n, evidence.right, evidence.accuracy) == (5, 2, 0.4)


def test_blank_pages_do_not_count_as_the_first_class():
    blank = np.tile([0.0, 0.0, 1.0], (20, 1))
    labels = np.repeat([0, 1], 10)
    assert evidence_of(blank, labels, ["a", "b"], threshold=0.5).accuracy == 0


def test_right_wrong_and_refused_add_up():
    sure = sure_answers(CHANCES, LABELS, threshold=0.6)
    assert sure == pytest.approx((1 / 5, 1 / 5, 3 / 5))


def test_a_mark_that_is_likelier_no_digit_is_refused_however_low_the_threshold():
    assert sure_answers(CHANCES[3:4], LABELS[3:4], threshold=0.0) == (0, 0, 1)


@pytest.mark.parametrize(("one", "other", "distance"), [
    ("", "", 0), ("123", "123", 0), ("123", "13", 1), ("9", "10", 2), ("", "42", 2)])
def test_edit_distance(one, other, distance):
    assert edit_distance(one, other) == distance
