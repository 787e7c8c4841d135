"""How good the answers to labelled images are: accuracy and its uncertainty, and which classes are confused."""
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class SureAnswers(NamedTuple):
    "Parts of all images, 0..1, which add up to 1."
    right: float  # right and sure
    wrong: float  # wrong and sure
    refused: float  # "unsure", "no digit", or nothing found


@dataclass(frozen=True)
class Evidence:
    "Results of a network on `n` labelled images."
    vocab: list[str]  # the classes, in the order of `confusion`
    confusion: np.ndarray  # counts `[actual, predicted]`
    loss: float  # mean loss of an image
    not_found: tuple[int, ...] = ()  # images of each class in which no digit was found; empty where that cannot be
    sure: SureAnswers | None = None  # where answers can be refused

    @property
    def n(self) -> int:
        return int(self.confusion.sum()) + sum(self.not_found)

    @property
    def right(self) -> int:
        "Images whose likeliest class is the right one, however likely it is."
        return int(np.trace(self.confusion))

    @property
    def accuracy(self) -> float:
        "Part of the images that are right, 0..1."
        return self.right / self.n

    @property
    def interval(self) -> tuple[float, float]:
        "The 95 % interval of the accuracy, 0..1."
        return accuracy_interval(self.right, self.n)

    def most_confused(self, k: int = 5) -> list[tuple[str, str, int]]:
        "The `k` most frequent mistakes as (actual, predicted, count)."
        wrong = self.confusion - np.diag(np.diag(self.confusion))
        order = np.argsort(-wrong, axis=None, kind="stable")[:k]
        pairs = [np.unravel_index(i, wrong.shape) for i in order]
        return [(self.vocab[a], self.vocab[p], int(wrong[a, p])) for a, p in pairs if wrong[a, p]]


def accuracy_interval(
    correct: int,  # images that were right
    n: int,  # images in all
) -> tuple[float, float]:  # lower and upper end, 0..1
    "The 95 % interval of an accuracy measured on `n` images (Wilson's score interval)."
    from scipy.stats import binomtest  # here, as its import takes longer than an answer of a network
    low, high = binomtest(correct, n).proportion_ci(0.95, method="wilson")
    return float(low), float(high)


def evidence_of(
    chances: np.ndarray,  # float `[n, classes + 1]`, the last one of "no digit"; 0 for all classes: nothing was found
    labels: np.ndarray,  # int `[n]`: indices of the classes
    vocab: list[str],  # the classes
    threshold: float,  # least probability of a sure answer
) -> Evidence:
    "The results of a network that gave these probabilities."
    found, guesses = is_found(chances), chances[:, :-1].argmax(1)
    confusion = np.zeros((len(vocab), len(vocab)), dtype=int)
    np.add.at(confusion, (labels[found], guesses[found]), 1)
    of_label = chances[np.arange(len(labels)), labels]
    return Evidence(vocab, confusion, float(-np.log(of_label.clip(1e-12)).mean()),
                    tuple(np.bincount(labels[~found], minlength=len(vocab)).tolist()),
                    sure_answers(chances, labels, threshold))


def sure_answers(
    chances: np.ndarray,  # as for `evidence_of`
    labels: np.ndarray,
    threshold: float,
) -> SureAnswers:
    "How many images are answered for sure, rightly and wrongly, as `digitfast predict` answers."
    sure = (chances[:, :-1].max(1) >= threshold) & (chances[:, -1] < chances[:, :-1].max(1))
    right = chances[:, :-1].argmax(1) == labels
    return SureAnswers(float((sure & right).mean()), float((sure & ~right).mean()), float((~sure).mean()))


def is_found(
    chances: np.ndarray,  # as for `evidence_of`
) -> np.ndarray:  # bool `[n]`
    "In which images there is anything that may be a digit."
    return chances[:, :-1].max(1) > 0
