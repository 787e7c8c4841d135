"""Which labels are most likely wrong: what networks say of images that they have not seen, against the labels."""
import fastai.callback.progress
import fastai.callback.schedule  # noqa: F401 - they give Learner no_bar and fit_one_cycle
import numpy as np
import torch
from fastai.data.core import DataLoaders
from fastai.torch_core import no_random
from fastcore.basics import noop

from digitfast.arithmetic import choose_precision, training_arithmetic
from digitfast.lean import LeanLearner
from digitfast.loaders import ResidentDL
from digitfast.losses import PlainCrossEntropyLoss
from digitfast.models import digit_net
from digitfast.optim import FusedAdam

LEAST_STEPS = 300  # a network needs them however few images there are
LARGEST_BATCH = 128


def confident_label_errors(
    chances: np.ndarray,  # `[n, classes]`, probabilities from networks that have not seen the images in training
    labels: np.ndarray,  # int `[n]`
) -> np.ndarray:  # int, the images whose labels are doubtful, the most doubtful first
    """The images that are confidently of another class than their label's.

    A network is confident of a class where its probability is at least the mean that it has on images of that label:
    a class of which it is seldom sure needs less. Ranked by how much likelier the likeliest other class is.
    Source: Northcutt et al., "Confident Learning: Estimating Uncertainty in Dataset Labels" (2021).
    """
    every, classes = np.arange(len(labels)), chances.shape[1]
    of_label = chances[every, labels]
    counts = np.bincount(labels, minlength=classes)
    usual = np.where(counts, np.bincount(labels, of_label, minlength=classes) / np.maximum(counts, 1), np.inf)
    confident = np.where(chances >= usual - 1e-6, chances, -1)  # less what rounding may take
    doubtful = (confident.max(axis=1) > -1) & (confident.argmax(axis=1) != labels)
    others = chances.copy()
    others[every, labels] = -1
    margin = of_label - others.max(axis=1)
    return np.flatnonzero(doubtful)[np.argsort(margin[doubtful], kind="stable")]


def cross_validated_chances(
    dl: ResidentDL,  # of labelled images
    folds: int = 5,
    seed: int = 0,  # of the parts, the weights and the order
) -> np.ndarray:  # float64 `[n, classes]`, in the dataset's order
    """Probabilities for every image from a `digitnet` that was trained without it and the rest of its fold.

    Each fold has its share of every class. Raises: `ValueError` where a class has less than two images.
    """
    labels = dl.labels.cpu()
    if (counts := labels.bincount(minlength=dl.c)).min() < 2:
        raise ValueError(f"{dl.vocab[int(counts.argmin())]} has less than two images")
    chances = torch.zeros(len(labels), dl.c, dtype=torch.float64)
    with no_random(seed, reproducible=False):
        fold = torch.zeros(len(labels), dtype=torch.long)
        for label in range(dl.c):
            rows = torch.nonzero(labels == label).flatten()
            fold[rows[torch.randperm(len(rows))]] = torch.arange(len(rows)) % folds
        for k in range(min(folds, int(counts.max()))):
            unseen = torch.nonzero(fold == k).flatten()
            chances[unseen] = _answers_of_a_network(dl, torch.nonzero(fold != k).flatten(), unseen)
    return chances.numpy()


def _answers_of_a_network(dl: ResidentDL, seen: torch.Tensor, unseen: torch.Tensor) -> torch.Tensor:
    "Probabilities for the `unseen` images from a network that has learned the `seen` ones."
    bs = max(2, min(LARGEST_BATCH, len(seen) // 8))
    train = _part(dl, seen, bs=bs, shuffle=True, drop_last=True)
    learn = LeanLearner(DataLoaders(train, _part(dl, unseen, bs=4 * LARGEST_BATCH)),
                        digit_net(1, dl.c, dl.pixels.shape[-1]), PlainCrossEntropyLoss(), FusedAdam)
    precision = choose_precision("auto", learn.model, dl.device)
    with learn.no_bar(), learn.no_logging():
        with training_arithmetic(learn.model, dl.device, "fp32" if precision == "fp16" else precision):
            learn.fit_one_cycle(-(-LEAST_STEPS // len(train)), 0.015)
        logits, _ = learn.get_preds(act=noop)
    return logits.double().softmax(dim=1)


def _part(dl: ResidentDL, rows: torch.Tensor, **kwargs) -> ResidentDL:
    "A loader of some of the images of `dl`."
    rows = rows.to(dl.pixels.device)
    return dl.new(range(len(rows)), ResidentDL, pixels=dl.pixels[rows], labels=dl.labels[rows], **kwargs)
