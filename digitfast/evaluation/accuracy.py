"""Measure answers to labelled images: accuracy, its uncertainty, and confused classes."""
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class SureAnswers(NamedTuple):
    "Shares of all images, 0..1, which add up to 1."
    right: float  # right and sure
    wrong: float  # wrong and sure
    refused: float  # "unsure", "no digit", or nothing found


@dataclass(frozen=True, kw_only=True)
class Evidence:
    "The results of a network on `n` labelled images."
    vocab: list[str]  # the classes, in the order of `confusion`
    confusion: np.ndarray  # counts `[actual, predicted]`
    loss: float  # mean loss per image
    not_found: tuple[int, ...] = ()  # per class, images in which no digit was found; () if unknown
    sure: SureAnswers | None = None  # None if the network cannot refuse to answer

    @property
    def n(self) -> int:
        return int(self.confusion.sum()) + sum(self.not_found)

    @property
    def right(self) -> int:
        "The number of images whose likeliest class is the right one, however likely it is."
        return int(np.trace(self.confusion))

    @property
    def accuracy(self) -> float:
        "The share of the images that are right, 0..1."
        return self.right / self.n

    @property
    def interval(self) -> tuple[float, float]:
        "The 95 % interval of the accuracy, 0..1."
        return accuracy_interval(self.right, self.n)

    def most_confused(self, k: int = 5) -> list[tuple[str, str, int]]:
        "Return the `k` most frequent mistakes as (actual, predicted, count)."
        wrong = self.confusion - np.diag(np.diag(self.confusion))
        order = np.argsort(-wrong, axis=None, kind="stable")[:k]
        pairs = [np.unravel_index(i, wrong.shape) for i in order]
        return [(self.vocab[a], self.vocab[p], int(wrong[a, p])) for a, p in pairs if wrong[a, p]]


def accuracy_interval(
    correct: int,  # number of images that were right
    n: int,  # number of images
) -> tuple[float, float]:  # lower and upper end, 0..1
    "Return the 95 % interval of an accuracy measured on `n` images (Wilson's score interval)."
    from scipy.stats import binomtest  # slower to import than a prediction takes
    low, high = binomtest(correct, n).proportion_ci(0.95, method="wilson")
    return float(low), float(high)


def count_confusion(
    actual: np.ndarray,  # int `[n]`: indices of the classes
    predicted: np.ndarray,  # int `[n]`: indices of the classes
    n_classes: int,
) -> np.ndarray:  # int `[n_classes, n_classes]`
    "Return the confusion matrix, the number of images per actual and predicted class."
    confusion = np.zeros((n_classes, n_classes), dtype=int)
    np.add.at(confusion, (actual, predicted), 1)
    return confusion


def evidence_of(
    chances: np.ndarray,  # float `[n, classes + 1]`, "no digit" last; all classes 0: nothing found
    labels: np.ndarray,  # int `[n]`: indices of the classes
    vocab: list[str],  # the classes
    threshold: float,  # least probability of a sure answer
) -> Evidence:
    "Return the results of a network that gave these probabilities."
    found = is_found(chances)
    guesses = chances[:, :-1].argmax(1)
    of_label = chances[np.arange(len(labels)), labels]
    not_found = np.bincount(labels[~found], minlength=len(vocab))
    return Evidence(
        vocab=vocab,
        confusion=count_confusion(labels[found], guesses[found], len(vocab)),
        loss=float(-np.log(of_label.clip(1e-12)).mean()),
        not_found=tuple(not_found.tolist()),
        sure=sure_answers(chances, labels, threshold))


def sure_answers(
    chances: np.ndarray,  # as for `evidence_of`
    labels: np.ndarray,  # int `[n]`: indices of the classes
    threshold: float,  # least probability of a sure answer
) -> SureAnswers:
    "Return the shares of images that `digitfast predict` gets right, gets wrong, and refuses."
    classes = chances[:, :-1]
    likeliest = classes.max(1)
    sure = (likeliest >= threshold) & (chances[:, -1] < likeliest)
    right = classes.argmax(1) == labels
    return SureAnswers(right=float((sure & right).mean()), wrong=float((sure & ~right).mean()),
                       refused=float((~sure).mean()))


def is_found(
    chances: np.ndarray,  # as for `evidence_of`
) -> np.ndarray:  # bool `[n]`
    "Return for each image whether it has anything that may be a digit."
    return chances[:, :-1].max(1) > 0


def edit_distance(
    one: str,
    other: str,
) -> int:
    """Return the Levenshtein distance of two texts.

    It counts the characters to insert, delete or replace to turn one into the other.
    """
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        above = row
        row = [i]
        for j, b in enumerate(other, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (a != b)))
    return row[-1]
