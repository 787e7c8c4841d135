"""What training shows on a console: one line per epoch, and progress bars on a terminal."""
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import fastai.callback.progress  # noqa: F401 - gives Learner no_bar
from fastai.callback.core import Callback
from fastai.imports import noop
from fastai.learner import Learner, Recorder

from digitfast.training.cuda_graphs import BESIDE
from digitfast.training.processes import is_first


@contextmanager
def console_table(learn: Learner) -> Iterator[None]:
    """While the context lasts, print one line per epoch, and draw bars only on a terminal.

    Within fastai's `no_logging` print nothing, and within `no_bar` draw no bars.
    """
    if learn.logger is noop:
        with learn.no_bar(), learn.added_cbs(_NoBars()):
            yield
        return
    table = _Table(learn)
    logger = learn.logger
    has_bars = hasattr(learn, "progress")
    with learn.no_bar():
        learn.logger = table.write if is_first() else noop
        try:
            if has_bars and sys.stdout.isatty() and is_first():
                from rich.progress import Progress
                with Progress(transient=True) as bars, learn.added_cbs(_Bars(bars)):
                    table.print = bars.console.print
                    yield
            else:
                with learn.added_cbs(_NoBars()):
                    yield
        finally:
            learn.logger = logger


def epoch_row(
    recorder: Recorder,  # with the log of an epoch
) -> list:  # a value per name in `metric_names`; None for a pass that was cut short or left out
    "Return what the `Recorder` has logged for an epoch, each value in its own column."
    row = list(recorder.log)
    missing = len(recorder.metric_names) - len(row)
    if recorder.cancel_train:
        train_metrics = len(recorder.metrics) if recorder.train_metrics else 0
        row[1:1] = [None] * min(missing, 1 + train_metrics)
        missing -= 1 + train_metrics
    end = len(row) - (1 if recorder.add_time else 0)
    row[end:end] = [None] * max(0, missing)
    return row


class _Table:
    "Print what the `Recorder` logs as lines of fixed width."

    heads = {"epoch": "Epoch", "train_loss": "Training loss", "valid_loss": "Validation loss",
             "accuracy": "Validation accuracy", "time": "Time"}  # others are called by their names

    def __init__(self, learn: Learner):
        self.learn = learn
        self.columns = None  # name: head
        self.print = lambda line: print(line, flush=True)

    def write(self, log) -> None:
        if self.columns is None:
            names = self.learn.recorder.metric_names
            self.columns = {name: self.heads.get(name, name) for name in names}
            self._line(self.columns.values())
        row = epoch_row(self.learn.recorder)
        self._line(self._cell(name, value)
                   for name, value in zip(self.columns, row, strict=True))

    def _line(self, cells) -> None:
        line = "  ".join(cell.rjust(max(len(head), 6))
                         for head, cell in zip(self.columns.values(), cells, strict=True))
        try:
            self.print(line)
        except BrokenPipeError:  # nobody reads the output any more; training continues
            self.print = noop

    @staticmethod
    def _cell(name: str, value) -> str:
        if value is None:
            return ""
        if name == "accuracy":
            return f"{100 * value:.2f} %"
        return f"{value:.4f}" if isinstance(value, float) else str(value)


class _NoBars(Callback):
    "Replace fastai's `ProgressCallback`, whose master bar other callbacks ask for."

    name = "progress"
    order = 60

    mbar = SimpleNamespace(update_graph=noop)  # a console shows no graph


class _Bars(_NoBars):
    "Draw one bar for the batches of each training and validation pass."

    cuda_graph = BESIDE

    def __init__(self, bars):
        super().__init__()
        self.bars = bars
        self.task = None

    def _start(self, phase: str) -> None:
        self._stop()
        self.task = self.bars.add_task(f"Epoch {self.epoch} {phase}", total=len(self.dl))

    def _stop(self) -> None:
        if self.task is not None:
            self.bars.remove_task(self.task)
            self.task = None

    def before_train(self): self._start("training")
    def before_validate(self): self._start("validation")
    def after_batch(self): self.bars.update(self.task, completed=self.iter + 1)
    def after_epoch(self): self._stop()
    def after_fit(self): self._stop()
