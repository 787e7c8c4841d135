"""Train a given `Learner`."""
import ctypes
from contextlib import ExitStack, suppress
from numbers import Real

import fastai.callback.schedule  # noqa: F401 - gives Learner fit_one_cycle
import torch
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.tracker import TrackerCallback
from fastai.learner import Learner
from fastai.torch_core import default_device
from fastcore.basics import listify
from fastcore.imports import IN_NOTEBOOK

from digitfast.errors import BadSetting, Diverged
from digitfast.registry import SCHEDULES, unknown
from digitfast.training.callbacks import DivergenceCheck
from digitfast.training.console import console_table
from digitfast.training.precision import choose_precision, training_arithmetic
from digitfast.training.processes import joined, on_first_process, process_count
from digitfast.training.recipe import check_training

LEAST_STEPS = 150  # that a network needs to learn anything well, however few images there are
LARGEST_KEPT = 2**25  # bytes, of a memory block to keep: the most that every glibc allows


def train_learner(
    learn: Learner,  # to train
    epochs: int = 1,  # passes over the training images, 1 or more
    lr: float | slice | None = None,  # (highest) learning rate, above 0; None: the Learner's own
    schedule: str = "one_cycle",  # one_cycle: up and down again; constant: the same rate throughout
    precision: str = "auto",  # of training passes: fp32, bf16, fp16, or auto for what is fast here
    cbs=None,  # callbacks for this training
) -> Learner:
    """Train `learn` with a schedule for the learning rate, and return it.

    Print one line per epoch, with bars on a terminal and no control characters in a log; in a
    notebook show what fastai shows. End as soon as the loss is not finite. If a launcher has
    started several processes, each takes its share of every batch; a script does all of its work
    within `joined`.

    Raises: `BadSetting`, `UnknownName`, `Diverged`, `ProcessEnded`.
    """
    check_training(epochs, lr, schedule, precision)
    lr = float(lr) if isinstance(lr, Real) else lr  # fastai takes numpy's numbers for lists
    _check_monitors(learn, cbs)
    if not len(learn.dls.train):
        raise BadSetting("there is no batch of training images, as in a Learner that was loaded "
                         "from a file; set learn.dls to loaders with images first")
    keep_freed_memory()
    fit = getattr(learn, SCHEDULES[schedule])
    with ExitStack() as contexts:
        if process_count() > 1:
            from digitfast.training.distributed import trained_together  # imports accelerate
            contexts.enter_context(joined())
            contexts.enter_context(trained_together(learn))
        device = getattr(learn.dls, "device", default_device())
        device = torch.device(device or next(learn.model.parameters()).device)
        precision = on_first_process(choose_precision)(precision, learn.model, device)
        if any(isinstance(cb, MixedPrecision) for cb in learn.cbs):
            precision = "fp32"  # `to_fp16` or `to_bf16` has chosen already
        contexts.enter_context(training_arithmetic(learn.model, device, precision))
        if precision == "fp16":
            contexts.enter_context(learn.added_cbs(_LossScaling()))
        if not IN_NOTEBOOK:
            contexts.enter_context(console_table(learn))
        check = DivergenceCheck()
        fit(epochs, lr, cbs=[*listify(cbs), check])
        if check.diverged:
            raise Diverged(check.diverged)
    return learn


class _LossScaling(MixedPrecision):
    "fastai's gradient scaling for fp16, without its autocast, which would include validation."

    def before_batch(self): pass
    def after_pred(self): pass
    def after_loss(self): pass


def _check_monitors(learn: Learner, cbs) -> None:
    "Raise `UnknownName` for a callback that monitors a value that the `Recorder` will not have."
    recorder = learn.recorder
    metrics = [metric.name for metric in learn.metrics]
    if recorder.train_metrics and recorder.valid_metrics:
        names = [f"{split}_{name}" for split in ("train", "valid") for name in ("loss", *metrics)]
    elif recorder.valid_metrics:
        names = ["train_loss", "valid_loss", *metrics]
    else:
        names = ["train_loss"]
    for cb in [*learn.cbs, *listify(cbs)]:
        if isinstance(cb, TrackerCallback) and cb.monitor not in names:
            raise unknown(f"value to monitor for {type(cb).__name__}", cb.monitor, names)


def keep_freed_memory() -> None:
    """Let the C library keep memory that tensors free, for later tensors of the same size.

    glibc returns every large block to the system and asks for it again, and the system clears each
    page again: a tenth of the time of a resnet18 step on two cores. Without glibc do nothing.
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        # setting either of the two stops glibc from adapting both
        if mallopt(mmap_threshold, LARGEST_KEPT) == 1:
            mallopt(trim_threshold, 2**31 - 1)
