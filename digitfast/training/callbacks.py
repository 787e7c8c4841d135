"""Callbacks for training: weight average, history, label smoothing, non-digits, divergence."""
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
    """Keep an exponential moving average of the weights and of batch norm's statistics.

    Validation uses the average, and so does the learner after training, instead of the last step's
    weights. The first steps count for more, so that the untrained weights are soon forgotten. The
    learner has the average from validation to the next epoch, so that `SaveModelCallback` saves
    what was validated.

    Raises: `BadSetting` for a decay out of range.
    """

    cuda_graph = BESIDE

    def __init__(
        self,
        decay: float = 0.999,  # part of the average that a step leaves unchanged, 0 to below 1
    ):
        super().__init__()
        if not 0 <= decay < 1:
            raise BadSetting("the decay of the running mean of the weights must be 0 to below 1, "
                             f"such as 0.999, not {decay}")
        self.decay = decay

    def before_fit(self):
        self.steps = 0
        self.averaged = False  # True: the model has the mean, and `self.mean` the last weights
        self.weights = [t for t in (*self.model.parameters(), *self.model.buffers())
                        if t.is_floating_point()]
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
        "Return what a checkpoint keeps in addition to the model's weights."
        return {"steps": self.steps, "averaged": self.averaged, "mean": self.mean}

    def load_state_dict(self, state: dict) -> None:
        "Resume from a `state_dict`, once the model has the weights that it had then."
        self.steps = state["steps"]
        self.averaged = state["averaged"]
        for mean, kept in zip(self.mean, state["mean"], strict=True):
            mean.copy_(kept)
        self.show_mean(False)


class History(Callback):
    "Write one line per epoch to a CSV file: losses, metrics and time."

    order = 60  # after the `Recorder`

    def __init__(
        self,
        fname: str,  # of the file, in the folder of the `Learner`
    ):
        super().__init__()
        self.fname = fname
        self.rows = []

    def before_fit(self):
        self.rows = [list(self.recorder.metric_names)]
        self._write("w", self.rows)

    def after_epoch(self):
        row = ["" if value is None else str(value) for value in epoch_row(self.recorder)]
        self.rows.append(row)
        self._write("a", [row])

    def _write(self, mode: str, rows: list) -> None:
        if not is_first():
            return
        with open(self.path / self.fname, mode, newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)

    def state_dict(self) -> dict:
        "Return the lines so far, for a checkpoint."
        return {"rows": self.rows}

    def load_state_dict(self, state: dict) -> None:
        "Rewrite the file with the lines of a `state_dict`, and continue after them."
        self.rows = state["rows"]
        self._write("w", self.rows)


class LabelSmoothing(Callback):
    """Train towards `1 - smoothing` for the right class plus an equal share for every class.

    The equal shares add up to `smoothing`. The losses that are shown and recorded, in training and
    in validation, remain those of the labels without smoothing.

    Raises: `BadSetting` for a smoothing out of range.
    Source: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (2016).
    """

    cuda_graph = INSIDE

    def __init__(
        self,
        smoothing: float = 0.05,  # part of the probability that all classes share, 0 to below 1
    ):
        super().__init__()
        if not 0 <= smoothing < 1:
            raise BadSetting("label smoothing must be 0 to below 1, such as 0.05, "
                             f"not {smoothing}")
        self.smoothing = smoothing

    def after_loss(self):
        if self.training:
            equal_shares = -self.pred.log_softmax(-1).mean()
            self.learn.loss_grad = torch.lerp(self.loss_grad, equal_shares, self.smoothing)


class NonDigits(Callback):
    """Train a network to say "no digit" as well: add some of `images` to each training batch.

    "No digit" needs no output of its own (see `with_no_digit`), and fastai's softmax stays right
    among digits. Validation, and the loss shown for it, is on digits alone.

    Raises: `BadSetting` for a share out of range.
    """

    order = -1  # before the other callbacks see the batch
    cuda_graph = INSIDE

    def __init__(
        self,
        images: torch.Tensor,  # uint8 `[n, h, w]`, of the digits' size and form, 255 = ink
        share: float = 0.2,  # non-digits per digit in a training batch, above 0 to 1
    ):
        super().__init__()
        if not 0 < share <= 1:
            raise BadSetting("non_digits must be above 0 and at most 1 (non-digits per digit), "
                             f"such as 0.2, not {share}")
        of_bytes = isinstance(images, torch.Tensor) and images.dtype == torch.uint8
        if not (of_bytes and images.dim() == 3 and len(images)):
            what = (f"{images.dtype} {list(images.shape)}" if isinstance(images, torch.Tensor)
                    else type(images).__name__)
            raise BadSetting("images of non-digits must be a tensor of uint8 [n, h, w], n at least "
                             f"1, not {what}")
        self.images = images
        self.share = share

    def before_fit(self):
        self.images = self.images.to(next(self.model.parameters()).device)

    def before_batch(self):
        if not self.training:
            return
        digits = self.xb[0]
        labels = self.yb[0]
        n = max(1, round(len(digits) * self.share))
        drawn = torch.randint(len(self.images), (n,), device=digits.device)
        images, none = self.dl.after_batch((TensorImageBW(self.images[drawn, None]),
                                            labels.new_full((n,), self.dls.c)))
        self.learn.xb = (torch.cat([digits, images]),)
        self.learn.yb = (torch.cat([labels, none]),)

    def after_pred(self):
        if self.training:
            self.learn.pred = with_no_digit(self.pred)


class DivergenceCheck(Callback):
    "End training as soon as its loss is not finite, and keep the explanation in `diverged`."

    order = 55  # after the `Recorder` has the loss
    cuda_graph = BESIDE

    def __init__(self):
        super().__init__()
        self.diverged = ""

    def after_batch(self):
        # on GPUs and with several processes, reading the loss of each step would be slow
        if self.training and process_count() == 1 and self.loss.device.type == "cpu":
            self._check(self.loss.detach())

    def after_train(self):
        smooth_loss = self.recorder.smooth_loss
        self._check(smooth_loss.value if smooth_loss.count else None)

    def after_validate(self):
        loss = self.recorder.loss  # without a count where a callback has cancelled validation
        self._check(loss.value if getattr(loss, "count", 0) else None)

    def _check(self, loss) -> None:
        finite = loss is None or math.isfinite(loss)
        if any(wanted_by_any(not finite)):  # all processes end at the same step
            smaller = min(self.opt.hypers[-1]["lr"] / 10, 0.01)
            self.diverged = (f"training diverged in epoch {self.epoch}: the loss is {float(loss)} "
                             f"after {self.learn.train_iter} steps; try a smaller learning rate, "
                             f"such as lr={smaller:.1g}")
            raise CancelFitException
