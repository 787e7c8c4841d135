"""What training shows on a console: one line an epoch, and bars where a person watches."""
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

_COLUMNS = {"epoch": "Epoch", "train_loss": "Training loss", "valid_loss": "Validation loss",
            "accuracy": "Validation accuracy", "time": "Time"}


@contextmanager
def console_table(learn: Learner) -> Iterator[None]:
    """While the context lasts, `learn` prints one line an epoch, and draws bars only where a person watches.

    Within fastai's `no_logging` it prints nothing, and within `no_bar` it draws no bars.
    """
    if learn.logger is noop:
        with learn.no_bar(), learn.added_cbs(_NoBars()):
            yield
        return
    table, logger, bars = _Table(learn), learn.logger, hasattr(learn, "progress")
    with learn.no_bar():
        learn.logger = table.write if is_first() else noop
        try:
            if bars and sys.stdout.isatty() and is_first():
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
) -> list:  # one value for each of its `metric_names`; None where a callback has cut a pass, or there was no validation
    "What the `Recorder` has logged of an epoch, each value in its own column."
    row, missing = list(recorder.log), len(recorder.metric_names) - len(recorder.log)
    if recorder.cancel_train:
        of_training = 1 + len(recorder.metrics) * recorder.train_metrics
        row[1:1] = [None] * min(missing, of_training)
        missing -= of_training
    end = len(row) - recorder.add_time
    row[end:end] = [None] * max(0, missing)
    return row


class _Table:
    "Fixed-width lines of what the `Recorder` logs."

    def __init__(self, learn: Learner):
        self.learn, self.columns, self.print = learn, None, lambda line: print(line, flush=True)

    def write(self, log) -> None:
        if self.columns is None:
            self.columns = {name: _COLUMNS.get(name, name) for name in self.learn.recorder.metric_names}
            self._line(self.columns.values())
        row = epoch_row(self.learn.recorder)
        self._line(self._cell(name, value) for name, value in zip(self.columns, row, strict=True))

    def _line(self, cells) -> None:
        line = "  ".join(cell.rjust(max(len(head), 6))
                         for head, cell in zip(self.columns.values(), cells, strict=True))
        try:
            self.print(line)
        except BrokenPipeError:  # nobody reads on, but the training is not lost
            self.print = noop

    @staticmethod
    def _cell(name: str, value) -> str:
        if value is None:
            return ""
        if name == "accuracy":
            return f"{100 * value:.2f} %"
        return f"{value:.4f}" if isinstance(value, float) else str(value)


class _NoBars(Callback):
    "Stands in for fastai's `ProgressCallback`, which others ask for its master bar."

    name = "progress"
    order = 60

    mbar = SimpleNamespace(update_graph=noop)  # nobody sees a graph on a console


class _Bars(_NoBars):
    "One bar for the batches of each training and validation pass."

    cuda_graph = BESIDE

    def __init__(self, bars):
        super().__init__()
        self.bars, self.task = bars, None

    def _start(self, what: str) -> None:
        self._stop()
        self.task = self.bars.add_task(f"Epoch {self.epoch} {what}", total=len(self.dl))

    def _stop(self) -> None:
        if self.task is not None:
            self.bars.remove_task(self.task)
            self.task = None

    def before_train(self): self._start("training")
    def before_validate(self): self._start("validation")
    def after_batch(self): self.bars.update(self.task, completed=self.iter + 1)
    def after_epoch(self): self._stop()
    def after_fit(self): self._stop()
