"""Which labels are most likely wrong: what networks say of images that they have not seen, against the labels."""
import fastai.callback.progress
import fastai.callback.schedule  # noqa: F401 - they give Learner no_bar and fit_one_cycle
import numpy as np
import torch
from fastai.callback.core import Callback, CancelValidException
from fastai.data.core import DataLoaders
from fastai.torch_core import no_random
from fastcore.basics import noop

from digitfast.data.resident import ResidentDL
from digitfast.models.digit_nets import digit_net
from digitfast.training.lean import ChannelsLastImages, LeanLearner
from digitfast.training.losses import PlainCrossEntropyLoss
from digitfast.training.optimizers import FusedAdam
from digitfast.training.precision import choose_precision, training_arithmetic
from digitfast.training.train import LEAST_STEPS

LARGEST_BATCH = 128


def confident_label_errors(
    chances: np.ndarray,  # `[n, classes]`, probabilities from networks that have not seen the images in training
    labels: np.ndarray,  # int `[n]`
) -> np.ndarray:  # int, the images whose labels are doubtful, the most doubtful first
    """The images that are confidently of another class than their label's, and likelier of it too.

    A network is confident of a class where its probability is at least the mean that it has on images of that label:
    a class of which it is seldom sure needs less. Ranked by how much likelier the likeliest other class is.
    Source: Northcutt et al., "Confident Learning: Estimating Uncertainty in Dataset Labels" (2021).
    """
    every, classes = np.arange(len(labels)), chances.shape[1]
    of_label = chances[every, labels]
    counts = np.bincount(labels, minlength=classes)
    usual = np.where(counts, np.bincount(labels, of_label, minlength=classes) / np.maximum(counts, 1), np.inf)
    confident = np.where(chances >= usual - 1e-6, chances, -1)  # less what rounding may take
    margins = label_margins(chances, labels)
    doubtful = (confident.max(axis=1) > -1) & (confident.argmax(axis=1) != labels) & (margins < 0)
    return np.flatnonzero(doubtful)[np.argsort(margins[doubtful], kind="stable")]


def label_margins(
    chances: np.ndarray,  # `[n, classes]`
    labels: np.ndarray,  # int `[n]`
) -> np.ndarray:  # float `[n]`
    "How much likelier each label is than the likeliest other class: below 0 where the networks contradict it."
    every = np.arange(len(labels))
    others = chances.copy()
    others[every, labels] = -1
    return chances[every, labels] - others.max(axis=1)


def cross_validated_chances(
    dl: ResidentDL,  # of labelled images
    others: ResidentDL,  # of images of the same classes
    folds: int = 5,
    seed: int = 0,  # of the parts, the weights and the order
) -> tuple[np.ndarray, np.ndarray]:  # float64 `[n, classes]` for the images of each loader, in their datasets' order
    """Probabilities from networks (`digitnet`) that have not seen the images: for every image of `dl` those of one that
    was trained without it and the rest of its fold, for `others` the mean of all.

    Each fold has its share of every class; a class wants two images at least.
    """
    labels = dl.labels.cpu()
    chances = torch.zeros(len(labels), dl.c, dtype=torch.float64)
    of_others = torch.zeros(len(others.labels), dl.c, dtype=torch.float64)
    with no_random(seed, reproducible=False):
        fold = torch.zeros(len(labels), dtype=torch.long)
        for label in range(dl.c):
            rows = torch.nonzero(labels == label).flatten()
            fold[rows[torch.randperm(len(rows))]] = torch.arange(len(rows)) % folds
        folds = int(fold.max()) + 1
        for k in range(folds):
            learn = _trained(_part(dl, fold != k, shuffle=True, drop_last=True), dl.c)
            chances[fold == k] = _answers(learn, _part(dl, fold == k))
            of_others += _answers(learn, others) / folds
    return chances.numpy(), of_others.numpy()


def _trained(dl: ResidentDL, classes: int) -> LeanLearner:
    "A network that has learned the images of `dl`."
    dl.bs = max(2, min(LARGEST_BATCH, dl.n // 8))
    net = digit_net(1, classes, dl.pixels.shape[-1])
    learn = LeanLearner(DataLoaders(dl, dl), net, PlainCrossEntropyLoss(), FusedAdam, cbs=ChannelsLastImages())
    precision = choose_precision("auto", net, dl.device)
    with (learn.no_bar(), learn.no_logging(),
          training_arithmetic(net, dl.device, "fp32" if precision == "fp16" else precision)):
        learn.fit_one_cycle(-(-LEAST_STEPS // len(dl)), 0.015, cbs=_NoValidation())
    return learn


class _NoValidation(Callback):
    def before_validate(self): raise CancelValidException


def _answers(learn: LeanLearner, dl: ResidentDL) -> torch.Tensor:
    with learn.no_bar():
        return learn.get_preds(dl=dl, act=noop)[0].double().softmax(dim=1)


def _part(dl: ResidentDL, rows: torch.Tensor, shuffle: bool = False, drop_last: bool = False) -> ResidentDL:
    "A loader of some of the images of `dl`, by a mask."
    rows = rows.to(dl.pixels.device)
    labels = dl.labels[rows]
    return dl.new(range(len(labels)), ResidentDL, pixels=dl.pixels[rows], labels=labels, shuffle=shuffle,
                  drop_last=drop_last)
