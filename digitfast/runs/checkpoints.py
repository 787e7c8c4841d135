"""Checkpoints: all that a training has come to, so that one that was killed goes on as if nothing had happened."""
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
from digitfast.files import whole_file
from digitfast.sealed import read_sealed, write_sealed
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
SHARE = 0.005  # part of the time that checkpoints may take; at the ends of very short epochs some are left out
KEPT = 2  # the last ones; beside them the one of lowest validation loss


@contextmanager
def checkpointed(
    learn: Learner,  # ready to be trained
    folder: Path,  # of the checkpoints; it is made if need be
    facts: dict[str, Any],  # what has to be the same when the training goes on: settings, checksum of the data
) -> Iterator["Checkpoints"]:
    """While the context lasts, a training of `learn` leaves checkpoints, and goes on from the last good one there is.

    On the CPU in fp32 the weights are in the end bit for bit those of a training that was never stopped. Ctrl-C ends
    the training behind the batch it is in, with a checkpoint; pressed twice, it ends at once, where one process trains.
    Of several the first one reads and writes, and keeps where the random generators of the others are.
    Raises: `BadSetting` where `facts` are not those of the checkpoint; warns of damaged ones.
    """
    state = _last_good(folder)
    if state:
        _compare(state["facts"], facts, folder)
        state["random"] = state["random"][process_rank()]
        torch.set_num_threads(min(state["threads"], os.cpu_count() or 1))  # sums are the same with as many as before
        if is_first():
            print(f"going on at epoch {state['epoch']}, batch {state['batch']}", flush=True)
    checkpoints = Checkpoints(folder, facts, state)
    with learn.added_cbs(checkpoints), _going_on(learn, checkpoints, state), _interruptible(checkpoints):
        yield checkpoints


class Checkpoints(Callback):
    "Writes a checkpoint at the end of an epoch, and within one every `EVERY` seconds."

    order = 1000  # when all others have done their part
    cuda_graph = BESIDE

    def __init__(
        self,
        folder: Path,
        facts: dict[str, Any],  # as for `checkpointed`
        state: dict[str, Any] | None = None,  # that the training goes on from
    ):
        super().__init__()
        self.folder, self.facts = folder, facts
        self.before = state["seconds"] if state else 0.0  # of training, before this process
        self.lowest = state["lowest"] if state else math.inf  # validation loss of a checkpoint
        self.stop = False  # whether the training is to end behind this batch
        self.start = self.written = time.monotonic()
        self.took = 0.0  # seconds that the last one took

    @property
    def seconds(self) -> float:
        "Of training, over all processes that took part."
        return self.before + time.monotonic() - self.start

    def before_fit(self):
        self.start = self.written = time.monotonic()

    def before_train(self):
        self.shuffling = torch.get_rng_state()

    def before_validate(self):
        self.random = take_random_state()  # validation begins again when a training goes on from within it

    def after_batch(self):
        due = time.monotonic() - self.written > max(EVERY, self.took / SHARE)
        self.stop, due = wanted_by_any(self.stop, due)  # several processes stop and write behind the same batch
        if self.stop or due:
            if self.training:
                self.write(self.epoch, self.iter + 1)
            else:
                self.write(self.epoch, len(self.dls.train), self.random)
            if self.stop:
                raise KeyboardInterrupt

    def after_epoch(self):
        due = self.epoch + 1 == self.n_epoch or time.monotonic() - self.written > self.took / SHARE
        if any(wanted_by_any(due)):
            self.shuffling = torch.get_rng_state()
            self.write(self.epoch + 1, 0)

    def write(
        self,
        epoch: int,  # epochs that are over
        batch: int,  # batches of the next one that are
        random: dict[str, Any] | None = None,  # states of the random generators; None: as they are
    ) -> None:
        "Write a checkpoint and remove what it replaces. Raises: `OSError`, with the last good one still there."
        start = time.monotonic()
        if isinstance(self.learn, LeanLearner):
            self.learn.settle()
        self._write(epoch, batch, gathered(random or take_random_state()))
        self.written = time.monotonic()
        self.took = self.written - start

    @on_first_process
    def _write(self, epoch: int, batch: int, random: list[dict]) -> None:
        "As `write`, on one process; `random` are the states of the random generators of all processes."
        loss = self.recorder.values[-1][1] if epoch and not batch else math.inf  # of validation
        if best := loss < self.lowest:
            self.lowest = loss
        tensors: dict[str, torch.Tensor] = {}
        state = pack({"epoch": epoch, "batch": batch, "seconds": self.seconds, "lowest": self.lowest,
                      "threads": torch.get_num_threads(), "shuffling": self.shuffling, "random": random,
                      **take_state(self.learn, epoch < self.n_epoch)}, tensors)
        path = self.folder / f"{epoch:06}-{batch:06}.safetensors"
        try:
            write_sealed(path, tensors, {"format": FORMAT, "facts": self.facts, "state": state})
        except OSError as e:
            raise OSError(e.errno, f"{e.strerror}: no checkpoint could be written; the last one is whole",
                          str(path)) from e
        if best:
            _link(path, self.folder / BEST)
        for old in _files(self.folder)[:-KEPT]:
            old.unlink()


def _files(folder: Path) -> list[Path]:
    "The checkpoints in `folder`, the oldest first, without the best one."
    return sorted(folder.glob("[0-9]*-[0-9]*.safetensors"))


def _link(path: Path, name: Path) -> None:
    "Give the file at `path` a second `name`, in one step; where the disk knows no such thing, a copy gets it."
    with whole_file(name) as part:
        try:
            os.link(path, part)
        except OSError:
            shutil.copyfile(path, part)


@on_first_process
def _last_good(folder: Path) -> dict[str, Any] | None:
    "The state in the newest checkpoint that is whole; None where there is none."
    folder.mkdir(exist_ok=True)
    for part in folder.glob(".*.partial"):  # of a process that was killed while it wrote
        part.unlink()
    best = folder / BEST
    for path in [*reversed(_files(folder)), *([best] if best.is_file() else [])]:
        try:
            tensors, content = read_sealed(path)
            if content.get("format") != FORMAT:
                raise BadData(f"{path} has the format {content.get('format')!r}, which must be {FORMAT!r}")
            return {**unpack(content["state"], tensors), "facts": content["facts"]}
        except (BadData, LookupError, TypeError, AttributeError) as e:
            path.rename(path.with_suffix(".damaged"))
            known = e if isinstance(e, BadData) else f"{path} is no checkpoint of digitfast's ({e!r})"
            warnings.warn(f"{known}; the previous one is used, or training starts again", stacklevel=4)
    return None


def _compare(then: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    "Raise `BadSetting` where something differs that has to be the same."
    if then["processes"] != now["processes"]:
        raise BadSetting(f"the training in {folder} began with {then['processes']} processes, and there are "
                         f"{now['processes']} now; resume with: "
                         + launched(f"fit --resume {folder.parent}", then["processes"]))
    for key in {**then, **now}:
        if then.get(key) != now.get(key):
            raise BadSetting(f"{key} was {then.get(key)!r} when the training in {folder} began, and is "
                             f"{now.get(key)!r} now; it goes on only as it began. Set it back, or start a new run")


@contextmanager
def _interruptible(checkpoints: Checkpoints) -> Iterator[None]:
    "While the context lasts, the first Ctrl-C asks for a last checkpoint, and the second one interrupts."
    if threading.current_thread() is not threading.main_thread():  # others cannot
        yield
        return
    usual = signal.getsignal(signal.SIGINT)

    def ask(*_):
        checkpoints.stop = True
        if process_count() == 1:  # launchers of several send it once more to each
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
def _going_on(learn: Learner, checkpoints: Checkpoints, state: dict[str, Any] | None) -> Iterator[None]:
    "While the context lasts, `learn` trains from `state` on; fastai's own `start_epoch` knows only whole epochs."
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

    learn._do_fit, learn.all_batches = do_fit, all_batches
    try:
        yield
    finally:
        vars(learn).pop("_do_fit")
        vars(learn).pop("all_batches", None)
