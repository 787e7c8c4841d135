"""How far a network's probabilities can be believed, and how to make them right. No need of torch."""
import math

import numpy as np

LEAST_MISTAKES = 10  # among held-out images, for a temperature to be fitted to them
MOST_TEMPERATURE = 1000.0


def probabilities(
    logits: np.ndarray,  # `[n, classes]`
    temperature: float = 1.0,  # that they are divided by, above 0
    no_digit: bool = False,  # whether the network was trained with `NonDigits`
) -> np.ndarray:  # float64 `[n, classes + 1]`, the last one of "no digit": 0 for a network that does not know it
    """Probabilities from the logits of a network.

    The logit of "no digit" is always 0, as in `models.with_no_digit`, which networks learn with.
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
    """The temperature at which the probabilities are likeliest for these labels.

    Above 1 the network was too sure of itself, below 1 not sure enough.
    Source: Guo et al., "On Calibration of Modern Neural Networks" (2017).
    """
    from scipy.optimize import minimize_scalar  # here, as its import takes longer than an answer of the network
    each = np.arange(len(labels))

    def surprise(log_temperature: float) -> float:
        chances = probabilities(logits, math.exp(log_temperature), no_digit)
        return -float(np.log(chances[each, labels].clip(1e-12)).mean())

    limit = math.log(10)  # one number with one best value
    return math.exp(minimize_scalar(surprise, bounds=(-limit, limit), method="bounded").x)


def calibrate(
    logits: np.ndarray,  # `[n, classes]`, of images that the network was not trained on
    labels: np.ndarray,  # int `[n]`
    no_digit: bool = False,  # whether the network was trained with `NonDigits`
    refused: float = 0.008,  # part of such images of which "unsure" may be said
    folds: int = 5,
) -> dict[str, float]:  # temperature, threshold, and the expected calibration error with and without the temperature
    """What held-out images say of a network's probabilities: by which temperature they come right, and below which
    probability the answer is "unsure".

    Errors and threshold are cross-validated: each image counts with the probabilities that the other folds lead to.
    With fewer than `LEAST_MISTAKES` mistakes too little is known to make the network surer of itself. Then it is only
    made less sure, where Laplace's rule of succession asks for it: of n images that were all right, the next one is
    right with probability (n + 1) / (n + 2). With too few images to say which are the share `refused`, the threshold is
    0.5.
    """
    fit = _fit_cautiously if (logits.argmax(1) != labels).sum() < LEAST_MISTAKES else fit_temperature
    fold = np.random.default_rng(0).permutation(len(labels)) % folds
    before, after = probabilities(logits, 1.0, no_digit), probabilities(logits, 1.0, no_digit)
    for k in range(min(folds, len(labels)) if len(labels) > 1 else 0):
        held = fold == k
        after[held] = probabilities(logits[held], fit(logits[~held], labels[~held], no_digit), no_digit)
    surest = np.sort(after[:, :-1].max(1))
    place = math.floor(refused * (len(labels) + 1))  # as in conformal prediction
    return {"temperature": round(fit(logits, labels, no_digit), 4),
            "threshold": round(float(surest[place - 1]), 4) if place else 0.5,
            "expected_calibration_error": round(expected_calibration_error(after, labels), 5),
            "without_temperature": round(expected_calibration_error(before, labels), 5)}


def _fit_cautiously(logits: np.ndarray, labels: np.ndarray, no_digit: bool) -> float:
    """1 for a network that is in the mean no surer than the rule of succession allows; for others the temperature at
    which it is not, and no single answer surer than that of n right ones."""
    from scipy.optimize import brentq
    n, right = len(labels), (logits.argmax(1) == labels).sum()

    def sure(log_temperature: float) -> np.ndarray:
        return probabilities(logits, math.exp(log_temperature), no_digit)[:, :-1].max(1)

    def excess(log_temperature: float) -> float:
        found = sure(log_temperature)
        return max(found.mean() - (right + 1) / (n + 2), found.max() - (n + 1) / (n + 2))

    high = math.log(MOST_TEMPERATURE)
    if sure(0).mean() <= (right + 1) / (n + 2):
        return 1.0
    return MOST_TEMPERATURE if excess(high) > 0 else math.exp(brentq(excess, 0, high))


def reliability(
    chances: np.ndarray,  # `[n, classes + 1]` from `probabilities`
    labels: np.ndarray,  # int `[n]`
    bins: int = 15,
) -> np.ndarray:  # float64 `[bins, 3]`: the answers in each, the sum of their probabilities, how many are right
    "Answers by their probability, in bins of equal width."
    sure, right = _surest(chances, labels)
    which = (sure * bins).astype(int).clip(0, bins - 1)
    return np.stack([np.bincount(which, column, bins) for column in (np.ones_like(sure), sure, right)], axis=1)


def expected_calibration_error(
    chances: np.ndarray,  # `[n, classes + 1]` from `probabilities`
    labels: np.ndarray,  # int `[n]`
    bins: int = 15,
) -> float:
    """The mean difference between how sure a network is and how often it is right, 0..1, over bins of equal width.

    Source: Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning" (2015).
    """
    _, sure, right = reliability(chances, labels, bins).T
    return float(np.abs(right - sure).sum() / len(labels))


def accuracy_over_coverage(
    chances: np.ndarray,  # `[n, classes + 1]` from `probabilities`
    labels: np.ndarray,  # int `[n]`
    coverages: tuple[float, ...] = (1.0, 0.99, 0.98, 0.95, 0.9),  # parts of the images that are answered
) -> dict[float, float]:
    "The accuracy among the surest part of the images, for each of `coverages`."
    sure, right = _surest(chances, labels)
    right = right[np.argsort(-sure, kind="stable")]
    return {part: float(right[:max(1, round(part * len(right)))].mean()) for part in coverages}


def _surest(chances: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    "How sure the likeliest class of each image is, and whether it is the right one."
    return chances[:, :-1].max(axis=1), (chances[:, :-1].argmax(axis=1) == labels).astype(float)
