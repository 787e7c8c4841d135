"Compared with numbers known from how the data were made, or computed by hand."
import math

import numpy as np
import pytest
import torch

from digitfast.inference.calibration import (
    accuracy_over_coverage,
    calibrate,
    expected_calibration_error,
    fit_temperature,
    probabilities,
    reliability,
)
from digitfast.models.digit_nets import with_no_digit


def drawn(temperature, no_digit=False, n=20_000):
    "Return logits, and labels as frequent as the logits say at that temperature."
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(n, 10, generator=rng, dtype=torch.float64) * 3
    chances = torch.from_numpy(probabilities(logits, temperature, no_digit))
    return logits.numpy(), torch.multinomial(chances, 1, generator=rng)[:, 0].numpy()


def sure(*answers):
    "Return chances of two classes and of \"no digit\", given how likely the first class is."
    return np.array([[p, 0.95 - p, 0.05] for p in answers])


def test_probabilities_by_hand():
    logits = np.array([[math.log(3.0), 0.0], [0.0, math.log(2.0)]])
    known = np.array([[3 / 5, 1 / 5, 1 / 5], [1 / 4, 2 / 4, 1 / 4]])
    # the logit of "no digit" is 0, and e^0 = 1
    assert np.allclose(probabilities(logits, no_digit=True), known, atol=1e-6)
    closed = np.array([[3 / 4, 1 / 4, 0], [1 / 3, 2 / 3, 0]])
    assert np.allclose(probabilities(logits), closed, atol=1e-6)
    assert np.allclose(probabilities(logits * 2, 2.0, no_digit=True), known, atol=1e-6)
    assert probabilities(logits.astype(np.float16)).dtype == np.float64


@pytest.mark.parametrize("no_digit", [False, True])
def test_they_are_those_that_networks_learn_with(no_digit):
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 10, generator=rng, dtype=torch.float64) * 9
    wanted = (with_no_digit(logits / 1.7) if no_digit else logits / 1.7).softmax(dim=1)
    found = probabilities(logits.numpy(), 1.7, no_digit)[:, :wanted.shape[1]]
    assert np.allclose(found, wanted, atol=1e-12)


def test_probabilities_far_out():
    for no_digit in (False, True):
        chances = probabilities(np.array([[1e4, -1e4, 0.0], [-1e4] * 3]), 0.1, no_digit)
        assert np.isfinite(chances).all() and np.allclose(chances.sum(1), 1)
    assert chances[0].tolist() == [1, 0, 0, 0] and chances[1].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("no_digit", [False, True])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 5.0])
def test_temperature_is_found_again(temperature, no_digit):
    logits, labels = drawn(temperature, no_digit)
    assert fit_temperature(logits, labels, no_digit) == pytest.approx(temperature, rel=0.04)


@pytest.mark.parametrize("no_digit", [False, True])
def test_at_its_temperature_a_network_is_as_often_right_as_it_says(no_digit):
    logits, labels = drawn(2.0, no_digit)
    error = {t: expected_calibration_error(probabilities(logits, t, no_digit), labels)
             for t in (1.0, 2.0, 4.0)}
    assert error[2.0] < 0.01 < 0.1 < min(error[1.0], error[4.0])


def test_temperature_of_few_and_hopeless_images():
    assert 0.1 <= fit_temperature(np.array([[1.0, 2.0]]), np.array([1])) <= 10
    sure_and_wrong = np.array([[900.0, 0.0]] * 5)
    assert fit_temperature(sure_and_wrong, np.array([1] * 5)) <= 10
    logits = np.array([[3.0, 0.0]] * 10)
    assert fit_temperature(logits, np.array([0] * 10)) == pytest.approx(0.1, rel=0.01)
    assert fit_temperature(logits, np.array([0, 1] * 5)) == pytest.approx(10, rel=0.01)


def test_calibration_error_by_hand():
    chances, labels = sure(0.9, 0.8, 0.6, 0.55), np.array([0, 1, 0, 0])
    whole = abs(1 - 0.9 + 0 - 0.8 + 1 - 0.6 + 1 - 0.55) / 4
    in_fifths = (abs(1 - 0.9 + 0 - 0.81) + abs(1 - 0.61 + 1 - 0.65)) / 4
    assert expected_calibration_error(chances, labels, bins=1) == pytest.approx(whole)
    error = expected_calibration_error(sure(0.9, 0.81, 0.61, 0.65), labels, bins=5)
    assert error == pytest.approx(in_fifths)


def test_reliability_by_hand():
    rows = reliability(sure(0.9, 0.8, 0.6, 0.55), np.array([0, 1, 0, 0]), bins=4)
    assert np.allclose(rows, [[0, 0, 0], [0, 0, 0], [2, 1.15, 2], [2, 1.7, 1]])


def test_calibration_error_at_the_ends():
    certain = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    assert expected_calibration_error(certain, np.array([0, 1])) == 0
    assert expected_calibration_error(certain, np.array([1, 0])) == 1
    assert expected_calibration_error(certain, np.array([0, 0])) == 0.5
    assert expected_calibration_error(np.array([[0.0, 0.0, 1.0]]), np.array([1])) == 0


def test_accuracy_over_coverage_by_hand():
    chances = sure(0.7, 0.9, 0.6, 0.8)  # the surest is right, the next one wrong, the others right
    labels = np.array([0, 0, 0, 1])
    assert accuracy_over_coverage(chances, labels, (1.0, 0.75, 0.5, 0.25, 0.01)) == {
        1.0: 3 / 4, 0.75: pytest.approx(2 / 3), 0.5: 1 / 2, 0.25: 1.0, 0.01: 1.0}


def test_surer_answers_are_righter():
    logits, labels = drawn(1.0)
    covered = list(accuracy_over_coverage(probabilities(logits), labels).values())
    assert covered == sorted(covered) and covered[0] < covered[-1]


def test_no_digit_is_no_answer():
    "An image that is most likely no digit still counts by its likeliest class."
    chances = np.array([[0.3, 0.1, 0.6]])
    assert accuracy_over_coverage(chances, np.array([0]), (1.0,)) == {1.0: 1.0}
    assert expected_calibration_error(chances, np.array([0])) == pytest.approx(0.7)


def network(n, sharpness, seed, wrong=0):
    """Return logits and labels for a network that is wrong about the first `wrong` images only.

    It is `sharpness` times as sure as it should be.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, n)
    logits = rng.normal(0, 1, (n, 10))
    logits[np.arange(n), (labels + (np.arange(n) < wrong)) % 10] += 6
    return logits * sharpness, labels


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 5.0, 100.0])
def test_24_images_without_a_mistake_make_no_network_surer_of_itself(sharpness):
    found = calibrate(*network(24, sharpness, 0))
    assert found["temperature"] >= 1 and found["threshold"] == 0.5
    logits, labels = network(2000, sharpness, 1, wrong=60)
    chances = probabilities(logits, found["temperature"])
    wrong = chances[:, :-1].argmax(1) != labels
    assert wrong.sum() >= 60 and not (chances[wrong, :-1].max(1) > 0.999).any()


def test_many_mistakes_set_the_temperature():
    logits, labels = drawn(2.0)
    found = calibrate(logits, labels)
    assert found["temperature"] == pytest.approx(2, rel=0.1) != 1
    assert found["expected_calibration_error"] < 0.02 < found["without_temperature"]


def test_the_error_is_measured_on_images_that_the_temperature_was_not_fitted_to(monkeypatch):
    logits, labels = drawn(2.0)
    fitted = []

    def fit(logits, labels, no_digit):
        fitted.append(len(labels))
        return 1.0 if len(fitted) <= 5 else 7.0
    monkeypatch.setattr("digitfast.inference.calibration.fit_temperature", fit)
    found = calibrate(logits, labels)
    assert fitted == [len(labels) * 4 // 5] * 5 + [len(labels)] and found["temperature"] == 7
    assert found["expected_calibration_error"] == found["without_temperature"]


@pytest.mark.parametrize("n, place", [(123, None), (124, 0), (1000, 7)])
def test_the_threshold_is_an_images_probability_once_there_are_enough(n, place):
    logits, labels = network(n, 1.0, 3)
    surest = np.sort(probabilities(logits, calibrate(logits, labels)["temperature"])[:, :-1].max(1))
    wanted = 0.5 if place is None else surest[place]
    assert calibrate(logits, labels)["threshold"] == pytest.approx(wanted, abs=0.02)


@pytest.mark.parametrize("n", [1, 2, 6])
def test_few_images_are_enough_not_to_fail(n):
    assert calibrate(*network(n, 1.0, 0))["temperature"] >= 1
