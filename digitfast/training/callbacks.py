"""Callbacks for a training: what it keeps, what it learns from besides, and when it has failed."""
import csv
import math

import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.torch_core import TensorImageBW

from digitfast.errors import BadSetting
from digitfast.models.digit_nets import with_no_digit
from digitfast.training.console import epoch_row
from digitfast.training.cuda_graphs import BESIDE, INSIDE
from digitfast.training.processes import is_first, process_count, wanted_by_any


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
        self.rows.append(["" if value is None else str(value) for value in epoch_row(self.recorder)])
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
            self.learn.xb = (torch.cat([digits, images]),)
            self.learn.yb = (torch.cat([labels, none]),)

    def after_pred(self):
        if self.training:
            self.learn.pred = with_no_digit(self.pred)


class DivergenceCheck(Callback):
    "Ends a training as soon as its loss is not a number, and keeps what happened in `diverged`."

    order = 55  # when the `Recorder` has the loss
    cuda_graph = BESIDE

    def __init__(self):
        super().__init__()
        self.diverged = ""

    def after_batch(self):
        if self.training and process_count() == 1 and self.loss.device.type == "cpu":  # elsewhere a look is dear
            self._check(self.loss.detach())

    def after_train(self): self._check(self.recorder.smooth_loss.value if self.recorder.smooth_loss.count else None)
    def after_validate(self): self._check(self.recorder.loss.value)

    def _check(self, loss) -> None:
        finite = loss is None or math.isfinite(loss)
        if any(wanted_by_any(not finite)):  # several processes end at the same place
            smaller = min(self.opt.hypers[-1]["lr"] / 10, 0.01)
            self.diverged = (f"training has diverged in epoch {self.epoch}: the loss is {float(loss)} after "
                             f"{self.learn.train_iter} steps; try a smaller learning rate, such as lr={smaller:.1g}")
            raise CancelFitException
