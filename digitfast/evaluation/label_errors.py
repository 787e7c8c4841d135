"""Find labels that are most likely wrong, by networks that have not seen the images."""
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


def confident_label_errors(
    chances: np.ndarray,  # `[n, classes]`, probabilities from networks not trained on the images
    labels: np.ndarray,  # int `[n]`
) -> np.ndarray:  # int, indices of the images with doubtful labels, the most doubtful first
    """Return the images that are confidently, and more likely, of another class than their label.

    A network is confident of a class if it finds it at least as likely as it does on average for
    images of that label, so a class that it is seldom sure of needs less. The images are ranked by
    how much likelier the likeliest other class is.
    Source: Northcutt et al., "Confident Learning: Estimating Uncertainty in Dataset Labels" (2021).
    """
    rounding = 1e-6  # a probability may be this much lower than it should be
    classes = chances.shape[1]
    of_label = chances[np.arange(len(labels)), labels]
    counts = np.bincount(labels, minlength=classes)
    means = np.bincount(labels, of_label, minlength=classes) / np.maximum(counts, 1)
    least = np.where(counts, means, np.inf)  # nobody is confident of a class without images
    confident = np.where(chances >= least - rounding, chances, -1)
    margins = label_margins(chances, labels)
    of_another_class = (confident.max(axis=1) > -1) & (confident.argmax(axis=1) != labels)
    doubtful = of_another_class & (margins < 0)
    return np.flatnonzero(doubtful)[np.argsort(margins[doubtful], kind="stable")]


def label_margins(
    chances: np.ndarray,  # `[n, classes]`
    labels: np.ndarray,  # int `[n]`
) -> np.ndarray:  # float `[n]`, below 0 where the networks contradict the label
    "Return how much likelier each label is than the likeliest other class."
    rows = np.arange(len(labels))
    others = chances.copy()
    others[rows, labels] = -1
    return chances[rows, labels] - others.max(axis=1)


def cross_validated_chances(
    dl: ResidentDL,  # of labelled images, at least two per class
    others: ResidentDL,  # of images of the same classes
    folds: int = 5,
    seed: int = 0,  # of the folds, the weights and the order
) -> tuple[np.ndarray, np.ndarray]:  # float64 `[n, classes]` per loader, in its dataset's order
    """Return probabilities from networks (`digitnet`) that have not seen the images.

    Each image of `dl` is answered by the network trained without its fold; every fold has its share
    of every class. The images of `others` get the mean of all networks.
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
            learn = _train_network(_subset(dl, fold != k, shuffle=True, drop_last=True), dl.c)
            chances[fold == k] = _probabilities(learn, _subset(dl, fold == k))
            of_others += _probabilities(learn, others) / folds
    return chances.numpy(), of_others.numpy()


def _train_network(
    dl: ResidentDL,
    n_classes: int,
    lr: float = 0.015,
    max_bs: int = 128,
) -> LeanLearner:
    "Return a network trained on the images of `dl`; sets the batch size of `dl`."
    dl.bs = max(2, min(max_bs, dl.n // 8))
    net = digit_net(1, n_classes, dl.pixels.shape[-1])
    learn = LeanLearner(DataLoaders(dl, dl), net, PlainCrossEntropyLoss(), FusedAdam,
                        cbs=ChannelsLastImages())
    precision = choose_precision("auto", net, dl.device)
    if precision == "fp16":
        precision = "fp32"  # fp16 would need loss scaling
    epochs = -(-LEAST_STEPS // len(dl))  # rounded up
    with learn.no_bar(), learn.no_logging(), training_arithmetic(net, dl.device, precision):
        learn.fit_one_cycle(epochs, lr, cbs=_NoValidation())
    return learn


class _NoValidation(Callback):
    def before_validate(self): raise CancelValidException


def _probabilities(learn: LeanLearner, dl: ResidentDL) -> torch.Tensor:
    "Return the softmax of the network's logits in float64, `[n, classes]`."
    with learn.no_bar():
        return learn.get_preds(dl=dl, act=noop)[0].double().softmax(dim=1)


def _subset(
    dl: ResidentDL,
    mask: torch.Tensor,  # bool `[n]`: which images of `dl` to take
    shuffle: bool = False,
    drop_last: bool = False,
) -> ResidentDL:
    "Return a loader of some of the images of `dl`."
    mask = mask.to(dl.pixels.device)
    labels = dl.labels[mask]
    return dl.new(range(len(labels)), ResidentDL, pixels=dl.pixels[mask], labels=labels,
                  shuffle=shuffle, drop_last=drop_last)
