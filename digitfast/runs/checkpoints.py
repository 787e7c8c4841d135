"""Checkpoints: the whole state of a training, from which a killed one resumes without loss."""
import math
import os
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from fastai.callback.core import Callback, CancelEpochException
from fastai.learner import Learner

from digitfast.errors import BadData, BadSetting
from digitfast.files import read_sealed, whole_file, write_sealed
from digitfast.training.cuda_graphs import BESIDE
from digitfast.training.lean import LeanLearner
from digitfast.training.processes import (
    gathered,
    is_first,
    launched,
    on_first_process,
    process_count,
    process_rank,
    wanted_by_any,
)
from digitfast.training.state import (
    give_state,
    pack,
    set_random_state,
    take_random_state,
    take_state,
    unpack,
)

FORMAT = "digitfast checkpoint 3"
BEST = "best.safetensors"
EVERY = 60.0  # seconds between two checkpoints within an epoch
SHARE = 0.005  # of the training time for checkpoints; the ends of very short epochs may get none


@contextmanager
def checkpointed(
    learn: Learner,  # ready to be trained
    folder: Path,  # of the checkpoints; it is made if missing
    facts: dict[str, Any],  # must be the same on resuming: settings, checksum of the data
) -> Iterator["Checkpoints"]:
    """While the context lasts, let training write checkpoints and resume from the last good one.

    On the CPU in fp32 it ends with bit for bit the weights of a training that was never stopped.
    Ctrl-C ends the training after the current batch, with a checkpoint; pressed twice, at once, if
    only one process trains. Of several processes the first reads and writes the checkpoints, with
    the states of all random generators.

    Raises: `BadSetting` if `facts` differ from those of the checkpoint; warns of damaged ones.
    """
    state = _last_good(folder)
    if state:
        _check_facts(state["facts"], facts, folder)
        state["random"] = state["random"][process_rank()]
        threads = min(state["threads"], os.cpu_count() or 1)
        torch.set_num_threads(threads)  # the number of threads decides how sums are rounded
        if is_first():
            print(f"resuming at epoch {state['epoch']}, batch {state['batch']}", flush=True)
    checkpoints = Checkpoints(folder, facts, state)
    with (learn.added_cbs(checkpoints), _resumed(learn, checkpoints, state),
          _interruptible(checkpoints)):
        yield checkpoints


class Checkpoints(Callback):
    "Write a checkpoint at the end of every epoch, and every `EVERY` seconds within one."

    order = 1000  # after all others
    cuda_graph = BESIDE

    def __init__(
        self,
        folder: Path,
        facts: dict[str, Any],  # as for `checkpointed`
        state: dict[str, Any] | None = None,  # to resume from; None: a new training
    ):
        super().__init__()
        self.folder = folder
        self.facts = facts
        self.before = state["seconds"] if state else 0.0  # of training, before this process
        self.lowest = state["lowest"] if state else math.inf  # validation loss of a checkpoint
        self.stop = False  # whether to end the training after this batch
        self.start = self.written = time.monotonic()
        self.took = 0.0  # seconds to write the last checkpoint

    @property
    def seconds(self) -> float:
        "Seconds of training, before and after every resumption."
        return self.before + time.monotonic() - self.start

    def before_fit(self):
        self.start = self.written = time.monotonic()

    def before_train(self):
        self.shuffling = torch.get_rng_state()

    def before_validate(self):
        self.random = take_random_state()  # a training stopped in validation repeats it

    def after_batch(self):
        due = time.monotonic() - self.written > max(EVERY, self.took / SHARE)
        self.stop, due = wanted_by_any(self.stop, due)  # all processes act after the same batch
        if self.stop or due:
            if self.training:
                self.write(self.epoch, self.iter + 1)
            else:
                self.write(self.epoch, len(self.dls.train), self.random)
            if self.stop:
                raise KeyboardInterrupt

    def after_epoch(self):
        is_last = self.epoch + 1 == self.n_epoch
        due = is_last or time.monotonic() - self.written > self.took / SHARE
        if any(wanted_by_any(due)):
            self.shuffling = torch.get_rng_state()
            self.write(self.epoch + 1, 0)

    def write(
        self,
        epoch: int,  # finished epochs
        batch: int,  # finished batches of the next epoch
        random: dict[str, Any] | None = None,  # states of the random generators; None: current ones
    ) -> None:
        """Write a checkpoint and remove those it replaces.

        Raises: `OSError` if it cannot be written; the previous checkpoint is kept.
        """
        start = time.monotonic()
        if isinstance(self.learn, LeanLearner):
            self.learn.settle()
        self._write(epoch, batch, gathered(random or take_random_state()))
        self.written = time.monotonic()
        self.took = self.written - start

    @on_first_process
    def _write(self, epoch: int, batch: int, random: list[dict]) -> None:
        "Do the work of `write`; `random` has the states of the generators of every process."
        kept = 2  # newest checkpoints; the one of lowest validation loss is kept as well
        loss = self.recorder.values[-1][1] if epoch and not batch else math.inf  # of validation
        if best := loss < self.lowest:
            self.lowest = loss
        tensors: dict[str, torch.Tensor] = {}
        state = pack({"epoch": epoch, "batch": batch, "seconds": self.seconds,
                      "lowest": self.lowest, "threads": torch.get_num_threads(),
                      "shuffling": self.shuffling, "random": random,
                      **take_state(self.learn, epoch < self.n_epoch)}, tensors)
        path = self.folder / f"{epoch:06}-{batch:06}.safetensors"
        try:
            write_sealed(path, tensors, {"format": FORMAT, "facts": self.facts, "state": state})
        except OSError as e:
            message = f"{e.strerror}: no checkpoint could be written; the previous one is intact"
            raise OSError(e.errno, message, str(path)) from e
        if best:
            _link(path, self.folder / BEST)
        for old in _files(self.folder)[:-kept]:
            old.unlink()


def _files(folder: Path) -> list[Path]:
    "Return the checkpoints in `folder`, oldest first, without the best one."
    return sorted(folder.glob("[0-9]*-[0-9]*.safetensors"))


def _link(path: Path, name: Path) -> None:
    "Give the file at `path` a second `name` atomically: by a hard link, or a copy if links fail."
    with whole_file(name) as part:
        try:
            os.link(path, part)
        except OSError:
            shutil.copyfile(path, part)


@on_first_process
def _last_good(folder: Path) -> dict[str, Any] | None:
    "Return the state in the newest undamaged checkpoint; None if there is none."
    folder.mkdir(exist_ok=True)
    for part in folder.glob(".*.partial"):  # of a process that was killed while writing
        part.unlink()
    newest_first = _files(folder)[::-1]
    best = folder / BEST
    for path in [*newest_first, best] if best.is_file() else newest_first:
        try:
            tensors, content = read_sealed(path)
            found = content.get("format")
            if found != FORMAT:
                raise BadData(f"{path} has the format {found!r}, which must be {FORMAT!r}")
            return {**unpack(content["state"], tensors), "facts": content["facts"]}
        except (BadData, LookupError, TypeError, AttributeError) as e:
            path.rename(path.with_suffix(".damaged"))
            known = e if isinstance(e, BadData) else f"{path} is not a digitfast checkpoint ({e!r})"
            warnings.warn(f"{known}; the previous one is used, or training starts again",
                          stacklevel=4)
    return None


def _check_facts(then: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    "Raise `BadSetting` if anything differs that must be the same."
    if then["processes"] != now["processes"]:
        command = launched(f"fit --resume {folder.parent}", then["processes"])
        raise BadSetting(f"the training in {folder} began with {then['processes']} processes, and "
                         f"there are {now['processes']} now; resume with: {command}")
    for key in {**then, **now}:
        if then.get(key) != now.get(key):
            raise BadSetting(
                f"{key} was {then.get(key)!r} when the training in {folder} began, and is "
                f"{now.get(key)!r} now; change it back to resume, or start a new run")


@contextmanager
def _interruptible(checkpoints: Checkpoints) -> Iterator[None]:
    "While the context lasts, end with a checkpoint on the first Ctrl-C, and at once on the second."
    if threading.current_thread() is not threading.main_thread():  # others get no signals
        yield
        return
    usual = signal.getsignal(signal.SIGINT)

    def ask(*_):
        checkpoints.stop = True
        if process_count() == 1:  # launchers of several send a second one to each
            signal.signal(signal.SIGINT, usual)

    if usual is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
    if any(wanted_by_any(checkpoints.stop)):  # there was no batch left
        raise KeyboardInterrupt


@contextmanager
def _resumed(
    learn: Learner,
    checkpoints: Checkpoints,
    state: dict[str, Any] | None,  # to resume from; None: train from the beginning
) -> Iterator[None]:
    "While the context lasts, let training resume at a batch; fastai's `start_epoch` skips epochs."
    if state is None:
        yield
        return

    def do_fit():
        if state["epoch"] >= learn.n_epoch:
            give_state(learn, state, within_epoch=False)
        for epoch in range(state["epoch"], learn.n_epoch):
            learn.epoch = epoch
            learn._with_events(learn._do_epoch, "epoch", CancelEpochException)

    def all_batches():
        del learn.all_batches  # later passes are fastai's own
        learn.n_iter = len(learn.dl)
        checkpoints.shuffling = state["shuffling"]
        torch.set_rng_state(checkpoints.shuffling)
        give_state(learn, state, within_epoch=state["batch"] > 0)
        batches = iter(learn.dl)
        for _ in range(state["batch"]):
            next(batches)
        set_random_state(state["random"])
        for i, batch in enumerate(batches, state["batch"]):
            learn.one_batch(i, batch)

    learn._do_fit = do_fit
    learn.all_batches = all_batches
    try:
        yield
    finally:
        vars(learn).pop("_do_fit")
        vars(learn).pop("all_batches", None)
