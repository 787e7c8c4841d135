"""Recipes for a given `Learner`, and the callbacks for them."""
import csv
import ctypes
from contextlib import ExitStack, suppress
from functools import partial

import fastai.callback.schedule  # noqa: F401 - gives Learner fit_one_cycle
import torch
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from fastai.learner import Learner
from fastai.torch_core import TensorImageBW, default_device
from fastcore.imports import IN_NOTEBOOK

from digitfast.arithmetic import choose_precision, training_arithmetic
from digitfast.console import console_table
from digitfast.cuda_graphs import BESIDE, INSIDE
from digitfast.errors import BadSetting
from digitfast.models import with_no_digit
from digitfast.processes import done_once, is_first, joined, process_count
from digitfast.registry import PRECISIONS, SCHEDULES, unknown
from digitfast.tensors import channels_last

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def train_learner(
    learn: Learner,  # to train
    epochs: int = 1,  # passes over the training images, 1 or more
    lr: float | None = None,  # learning rate (the highest, for one_cycle), above 0; None: the Learner's own
    schedule: str = "one_cycle",  # one_cycle: up and down again; constant: the same rate all through
    precision: str = "auto",  # of the training passes: fp32, bf16, fp16, or auto for what is fast here
    cbs=None,  # callbacks for this training
) -> Learner:
    """Train `learn` by a schedule.

    It prints one line an epoch, with bars on a terminal and no control characters in a log; in a notebook it shows
    what fastai shows. Of several processes that a launcher has started, each takes its share of every batch; a script
    does all of its work within `joined`. Raises: `BadSetting`, `UnknownName`, `ProcessEnded`.
    """
    check_recipe(epochs, lr, schedule, precision)
    keep_freed_memory()
    fit = getattr(learn, SCHEDULES[schedule])
    with ExitStack() as contexts:
        if process_count() > 1:
            from digitfast.distributed import trained_together  # imports accelerate
            contexts.enter_context(joined())
            contexts.enter_context(trained_together(learn))
        device = getattr(learn.dls, "device", default_device()) or next(learn.model.parameters()).device
        device = torch.device(device)
        precision = done_once(partial(choose_precision, precision, learn.model, device))
        if any(isinstance(cb, MixedPrecision) for cb in learn.cbs):
            precision = "fp32"  # what `to_fp16` or `to_bf16` has settled already
        contexts.enter_context(training_arithmetic(learn.model, device, precision))
        if precision == "fp16":
            contexts.enter_context(learn.added_cbs(_LossScaling()))
        if not IN_NOTEBOOK:
            contexts.enter_context(console_table(learn))
        fit(epochs, lr, cbs=cbs)
    return learn


class WeightAverage(Callback):
    """Keeps a running mean of the weights and of batch norm's statistics: validation, and the learner after training,
    have that mean instead of the last step's weights.

    The mean is exponential; its first steps count for more, so that the untrained weights are soon forgotten. From
    validation to the next epoch the learner has it too, so that `SaveModelCallback` keeps what was validated.
    Raises: `BadSetting` for another decay.
    """

    cuda_graph = BESIDE

    def __init__(
        self,
        decay: float = 0.999,  # part of the mean that a step leaves as it is, 0 to below 1
    ):
        super().__init__()
        if not 0 <= decay < 1:
            raise BadSetting(f"a running mean of the weights with decay {decay}: 0 to below 1 is wanted, such as 0.999")
        self.decay = decay

    def before_fit(self):
        self.steps, self.averaged = 0, False  # whether the model has the mean, and `self.mean` the last step's weights
        self.weights = [t for t in (*self.model.parameters(), *self.model.buffers()) if t.is_floating_point()]
        self.mean = [t.detach().clone() for t in self.weights]

    def after_step(self):
        self.steps += 1
        torch._foreach_lerp_(self.mean, [t.detach() for t in self.weights],
                             1 - min(self.decay, (1 + self.steps) / (10 + self.steps)))

    def show_mean(self, averaged: bool) -> None:
        "Give the model the mean, or the last step's weights."
        if averaged != self.averaged:
            for weight, mean in zip(self.weights, self.mean, strict=True):
                weight.data, mean.data = mean.data, weight.data
            self.averaged = averaged

    def before_train(self): self.show_mean(False)
    def before_validate(self): self.show_mean(True)

    def after_fit(self):
        self.show_mean(True)
        self.weights = self.mean = None

    def state_dict(self) -> dict:
        "What a checkpoint keeps beside the weights that the model has."
        return {"steps": self.steps, "averaged": self.averaged, "mean": self.mean}

    def load_state_dict(self, state: dict) -> None:
        "Go on from what `state_dict` gave, once the model has the weights that it had then."
        self.steps, self.averaged = state["steps"], state["averaged"]
        for mean, kept in zip(self.mean, state["mean"], strict=True):
            mean.copy_(kept)
        self.show_mean(False)


class History(Callback):
    "Writes one line an epoch to a CSV file: losses, metrics and time."

    order = 60  # when the `Recorder` has the epoch

    def __init__(
        self,
        fname: str,  # of the file, in the folder of the `Learner`
    ):
        super().__init__()
        self.fname, self.rows = fname, []

    def before_fit(self):
        self.rows = [list(self.recorder.metric_names)]
        self._write("w", self.rows)

    def after_epoch(self):
        self.rows.append([str(value) for value in self.recorder.log])
        self._write("a", self.rows[-1:])

    def _write(self, mode: str, rows: list) -> None:
        if not is_first():
            return
        with open(self.path / self.fname, mode, newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)

    def state_dict(self) -> dict:
        "The lines so far, for a checkpoint."
        return {"rows": self.rows}

    def load_state_dict(self, state: dict) -> None:
        "Go on behind the lines that `state_dict` gave."
        self.rows = state["rows"]
        self._write("w", self.rows)


class LabelSmoothing(Callback):
    """Trains towards `1 - smoothing` for the right class and an equal share of `smoothing` for every class.

    Losses that are shown and kept, in training and in validation, stay those of the labels as they are.
    Source: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (2016). Raises: `BadSetting`.
    """

    cuda_graph = INSIDE

    def __init__(
        self,
        smoothing: float = 0.05,  # part of the probability that all classes share, 0 to below 1
    ):
        super().__init__()
        if not 0 <= smoothing < 1:
            raise BadSetting(f"label smoothing of {smoothing}: 0 to below 1 is wanted, such as 0.05")
        self.smoothing = smoothing

    def after_loss(self):
        if self.training:
            equal_shares = -self.pred.log_softmax(-1).mean()
            self.learn.loss_grad = torch.lerp(self.loss_grad, equal_shares, self.smoothing)


class NonDigits(Callback):
    """Trains a network to say "no digit" as well: each training batch gets some of `images` beside its digits.

    "No digit" needs no output of its own (see `with_no_digit`), and the softmax that fastai takes stays right among
    digits. Validation is on digits alone, and so is the loss shown for it. Raises: `BadSetting`.
    """

    order = -1  # before the other callbacks see the batch
    cuda_graph = INSIDE

    def __init__(
        self,
        images: torch.Tensor,  # uint8 `[n, h, w]`, of the same form and size as the digits, 255 = ink
        share: float = 0.2,  # non-digits to a digit in a training batch, above 0 to 1
    ):
        super().__init__()
        if not 0 < share <= 1:
            raise BadSetting(f"non_digits={share}: non-digits to a digit are wanted, above 0 to 1, such as 0.2")
        self.images, self.share = images, share

    def before_fit(self):
        self.images = self.images.to(next(self.model.parameters()).device)

    def before_batch(self):
        if self.training:
            digits, labels = self.xb[0], self.yb[0]
            drawn = torch.randint(len(self.images), (max(1, round(len(digits) * self.share)),), device=digits.device)
            images, none = self.dl.after_batch((TensorImageBW(self.images[drawn, None]),
                                                labels.new_full((len(drawn),), self.dls.c)))
            self.learn.xb = (torch.cat([digits, channels_last(images)]),)
            self.learn.yb = (torch.cat([labels, none]),)

    def after_pred(self):
        if self.training:
            self.learn.pred = with_no_digit(self.pred)


class _LossScaling(MixedPrecision):
    "fastai's scaling of the gradients for fp16, without its autocast, which would take in validation."

    def before_batch(self): pass
    def after_pred(self): pass
    def after_loss(self): pass


def check_recipe(epochs: int, lr: float | None, schedule: str, precision: str) -> None:
    "Raise `BadSetting` or `UnknownName` for what `train_learner` cannot take."
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    if schedule not in SCHEDULES:
        raise unknown("schedule", schedule, SCHEDULES)
    if epochs < 1:
        raise BadSetting(f"epochs={epochs}: at least 1 is wanted")
    if lr is not None and not 0 < lr < float("inf"):
        raise BadSetting(f"lr={lr}: a learning rate above 0 is wanted, such as 0.003")


def check_seed(seed: int) -> None:
    "Raise `BadSetting` for a seed that numpy does not take."
    if not 0 <= seed < 2**32:
        raise BadSetting(f"seed={seed}: a whole number from 0 to {2**32 - 1} is wanted")


def keep_freed_memory() -> None:
    """Have the C library keep the memory that tensors free, for the next ones of the same size.

    glibc gives every large block back to the system and asks for it again, and the system clears each page anew: a
    tenth of the time of a resnet18 step on two cores. Elsewhere than on glibc this does nothing.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_MMAP_THRESHOLD, 2**30)
