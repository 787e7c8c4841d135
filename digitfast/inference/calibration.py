"""How far a network's probabilities can be trusted, and how to correct them, without torch."""
import math

import numpy as np


def probabilities(
    logits: np.ndarray,  # `[n, classes]`
    temperature: float = 1.0,  # divides the logits, above 0
    no_digit: bool = False,  # whether the network was trained with `NonDigits`
) -> np.ndarray:  # float64 `[n, classes + 1]`, "no digit" last (0 if it was not trained)
    """Return the softmax of a network's logits.

    The logit of "no digit" is always 0, as in `with_no_digit`, which networks are trained with.
    """
    logits = np.asarray(logits, np.float64) / temperature
    none = np.full((len(logits), 1), 0 if no_digit else -np.inf)
    logits = np.concatenate([logits, none], axis=1)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def fit_temperature(
    logits: np.ndarray,  # `[n, classes]`, of images that the network was not trained on
    labels: np.ndarray,  # int `[n]`
    no_digit: bool = False,  # whether the network was trained with `NonDigits`
) -> float:
    """Return the temperature, 0.1 to 10, at which these labels are likeliest (temperature scaling).

    Above 1 the network was too sure, below 1 not sure enough.
    Source: Guo et al., "On Calibration of Modern Neural Networks" (2017).
    """
    from scipy.optimize import minimize_scalar  # slower to import than a prediction takes
    rows = np.arange(len(labels))

    def negative_log_likelihood(log_temperature: float) -> float:
        chances = probabilities(logits, math.exp(log_temperature), no_digit)
        return -float(np.log(chances[rows, labels].clip(1e-12)).mean())

    limit = math.log(10)
    bounds = (-limit, limit)
    best = minimize_scalar(negative_log_likelihood, bounds=bounds, method="bounded")
    return math.exp(best.x)


def calibrate(
    logits: np.ndarray,  # `[n, classes]`, of images that the network was not trained on
    labels: np.ndarray,  # int `[n]`
    no_digit: bool = False,  # whether the network was trained with `NonDigits`
    refused: float = 0.008,  # share of such images that may be answered with "unsure"
    folds: int = 5,
) -> dict[str, float]:  # temperature, threshold, calibration error with and without the temperature
    """Return the temperature and the "unsure" threshold that held-out images call for.

    Errors and threshold are cross-validated: the probabilities of each image use the temperature
    fitted to the other folds.

    With fewer than 10 mistakes, too little is known to make the network surer. It is then only made
    less sure, where Laplace's rule of succession demands it: after n images that were all right,
    the next one is right with probability (n + 1) / (n + 2).

    The threshold is a quantile, as in conformal prediction; it is 0.5 with too few images for the
    share `refused` to amount to one.
    """
    least_mistakes = 10  # for `fit_temperature`
    mistakes = (logits.argmax(1) != labels).sum()
    fit = _fit_cautiously if mistakes < least_mistakes else fit_temperature
    n = len(labels)
    fold = np.random.default_rng(0).permutation(n) % folds
    before = probabilities(logits, 1.0, no_digit)
    after = before.copy()
    for k in range(min(folds, n) if n > 1 else 0):
        held = fold == k
        temperature = fit(logits[~held], labels[~held], no_digit)
        after[held] = probabilities(logits[held], temperature, no_digit)
    surest = np.sort(after[:, :-1].max(1))
    rank = math.floor(refused * (n + 1))
    return {"temperature": round(fit(logits, labels, no_digit), 4),
            "threshold": round(float(surest[rank - 1]), 4) if rank else 0.5,
            "expected_calibration_error": round(expected_calibration_error(after, labels), 5),
            "without_temperature": round(expected_calibration_error(before, labels), 5)}


def _fit_cautiously(
    logits: np.ndarray,
    labels: np.ndarray,
    no_digit: bool,
    max_temperature: float = 1000.0,
) -> float:
    """Return the temperature, 1 or more, that the rule of succession demands.

    It is 1 for a network whose mean probability is within the rule. For others it is the one at
    which the mean is, and no single answer is surer than the rule allows for n right ones
    (Brent's method).
    """
    from scipy.optimize import brentq
    n = len(labels)
    right = (logits.argmax(1) == labels).sum()
    allowed_mean = (right + 1) / (n + 2)
    allowed_max = (n + 1) / (n + 2)

    def surest_at(log_temperature: float) -> np.ndarray:
        return probabilities(logits, math.exp(log_temperature), no_digit)[:, :-1].max(1)

    def excess(log_temperature: float) -> float:
        surest = surest_at(log_temperature)
        return max(surest.mean() - allowed_mean, surest.max() - allowed_max)

    if surest_at(0).mean() <= allowed_mean:
        return 1.0
    high = math.log(max_temperature)
    return max_temperature if excess(high) > 0 else math.exp(brentq(excess, 0, high))


def reliability(
    chances: np.ndarray,  # `[n, classes + 1]` from `probabilities`
    labels: np.ndarray,  # int `[n]`
    bins: int = 15,
) -> np.ndarray:  # float64 `[bins, 3]`: answers, sum of their probabilities, right answers
    "Return a reliability diagram: the answers by their probability, in bins of equal width."
    sure, right = _surest(chances, labels)
    which = (sure * bins).astype(int).clip(0, bins - 1)
    columns = (np.ones_like(sure), sure, right)
    return np.stack([np.bincount(which, column, bins) for column in columns], axis=1)


def expected_calibration_error(
    chances: np.ndarray,  # `[n, classes + 1]` from `probabilities`
    labels: np.ndarray,  # int `[n]`
    bins: int = 15,
) -> float:
    """Return the mean difference between confidence and accuracy, 0..1, over bins of equal width.

    Source: Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning" (2015).
    """
    _, sure, right = reliability(chances, labels, bins).T
    return float(np.abs(right - sure).sum() / len(labels))


def accuracy_over_coverage(
    chances: np.ndarray,  # `[n, classes + 1]` from `probabilities`
    labels: np.ndarray,  # int `[n]`
    coverages: tuple[float, ...] = (1.0, 0.99, 0.98, 0.95, 0.9),  # shares of images answered
) -> dict[float, float]:
    "Return the accuracy among the surest share of the images, for each of `coverages`."
    sure, right = _surest(chances, labels)
    right = right[np.argsort(-sure, kind="stable")]
    return {part: float(right[:max(1, round(part * len(right)))].mean()) for part in coverages}


def _surest(chances: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    "Return the probability of each image's likeliest class, and whether that class is right."
    classes = chances[:, :-1]
    return classes.max(axis=1), (classes.argmax(axis=1) == labels).astype(float)
