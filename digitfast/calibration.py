"""How far a network's probabilities can be believed, and how to make them right."""
import math

import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar

from digitfast.models import with_no_digit


def probabilities(
    logits: torch.Tensor,  # `[n, classes]`
    temperature: float = 1.0,  # that they are divided by, above 0
    no_digit: bool = False,  # whether the network was trained with `NonDigits`
) -> torch.Tensor:  # float64 `[n, classes + 1]`, the last one of "no digit": 0 for a network that does not know it
    "Probabilities from the logits of a network."
    logits = logits.double() / temperature
    return with_no_digit(logits).softmax(dim=1) if no_digit else F.pad(logits.softmax(dim=1), (0, 1))


def fit_temperature(
    logits: torch.Tensor,  # `[n, classes]`, of images that the network was not trained on
    labels: torch.Tensor,  # int64 `[n]`
    no_digit: bool = False,  # whether the network was trained with `NonDigits`
) -> float:
    """The temperature at which the probabilities are likeliest for these labels.

    Above 1 the network was too sure of itself, below 1 not sure enough.
    Source: Guo et al., "On Calibration of Modern Neural Networks" (2017).
    """
    right = labels.view(-1, 1)

    def surprise(log_temperature: float) -> float:
        chances = probabilities(logits, math.exp(log_temperature), no_digit)
        return -float(chances.gather(1, right).clamp_min(1e-12).log().mean())

    limit = math.log(10)  # one number with one best value
    return math.exp(minimize_scalar(surprise, bounds=(-limit, limit), method="bounded").x)


def reliability(
    chances: torch.Tensor,  # `[n, classes + 1]` from `probabilities`
    labels: torch.Tensor,  # int64 `[n]`
    bins: int = 15,
) -> torch.Tensor:  # float64 `[bins, 3]`: the answers in each, the sum of their probabilities, how many are right
    "Answers by their probability, in bins of equal width."
    sure, answer = chances[:, :-1].max(dim=1)
    columns = torch.stack([torch.ones_like(sure), sure, (answer == labels).double()], dim=1)
    which = (sure * bins).long().clamp(0, bins - 1)
    return torch.zeros(bins, 3, dtype=torch.float64).index_add_(0, which, columns)


def expected_calibration_error(
    chances: torch.Tensor,  # `[n, classes + 1]` from `probabilities`
    labels: torch.Tensor,  # int64 `[n]`
    bins: int = 15,
) -> float:
    """The mean difference between how sure a network is and how often it is right, 0..1, over bins of equal width.

    Source: Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning" (2015).
    """
    _, sure, right = reliability(chances, labels, bins).unbind(dim=1)
    return float((right - sure).abs().sum() / len(labels))


def accuracy_over_coverage(
    chances: torch.Tensor,  # `[n, classes + 1]` from `probabilities`
    labels: torch.Tensor,  # int64 `[n]`
    coverages: tuple[float, ...] = (1.0, 0.99, 0.98, 0.95, 0.9),  # parts of the images that are answered
) -> dict[float, float]:
    "The accuracy among the surest part of the images, for each of `coverages`."
    sure, answer = chances[:, :-1].max(dim=1)
    right = (answer == labels).double()[sure.argsort(descending=True)]
    return {part: float(right[:max(1, round(part * len(right)))].mean()) for part in coverages}
