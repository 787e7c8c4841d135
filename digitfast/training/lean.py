"""A `Learner` with less work per batch, for networks whose batches take a millisecond or less."""
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import fastai.callback.schedule  # noqa: F401 - gives Learner lr_find
import torch
from fastai.callback.core import Callback, _inner_loop
from fastai.learner import Learner

from digitfast.training.cuda_graphs import (
    INSIDE,
    CapturedStep,
    can_capture,
    train_with_graph,
    waits_for,
)
from digitfast.training.precision import plain_forward
from digitfast.training.state import random_state_kept


class LeanLearner(Learner):
    """fastai's `Learner`, which passes an event of a batch only to callbacks that wait for it.

    Callbacks get the same events in the same order as in fastai's own. On a GPU, training steps are
    replayed as a CUDA graph where that is known to be safe (`can_capture`). Without a `path`, files
    go to the current folder, not among the digits. An exported file does not say in which folder it
    was made.
    """

    captured_step: CapturedStep | None = None  # of the present training
    _asked: list[Callback] | None = None  # callbacks that get events of a batch; None: all
    _there: tuple[int, ...] = ()  # ids of the callbacks that `_waiting` was made from

    def __init__(self, *args, path: str | Path | None = None, **kwargs):
        self._waiting = {}  # event: the callbacks that have a method for it
        super().__init__(*args, path=Path(path or "."), **kwargs)

    def __getstate__(self):
        # a pickled Path can be opened only on the system that it comes from
        return {**super().__getstate__(), "path": str(self.path), "_waiting": {}, "_there": ()}

    def __setstate__(self, state: dict):
        super().__setstate__({**state, "path": Path(state["path"])})

    def __call__(self, event_name):
        if event_name not in _inner_loop:
            super().__call__(event_name)
            return
        there = tuple(map(id, self.cbs))
        if there != self._there:  # `cbs` is a list that anybody may change
            self._waiting.clear()
            self._there = there
        waiting = self._waiting.get(event_name)
        if waiting is None:
            asked = self.cbs.sorted("order") if self._asked is None else self._asked
            waiting = [cb for cb in asked if waits_for(cb, event_name)]
            self._waiting[event_name] = waiting
        for cb in waiting:
            cb(event_name)

    @contextmanager
    def asking(
        self,
        cbs: list[Callback],  # in their order
    ) -> Iterator[None]:
        "While the context lasts, only `cbs` get the events of a batch."
        before = self._asked, self._waiting
        self._asked = cbs
        self._waiting = {}
        try:
            yield
        finally:
            self._asked, self._waiting = before

    def all_batches(self):
        if self.training and can_capture(self):
            train_with_graph(self)
        else:
            super().all_batches()

    def lr_find(self, *args, stop_div: bool = True, **kwargs):
        """Return fastai's suggestions, and leave random generators and folder as they were.

        If the loss rises too soon for a suggestion, as it may with a trained network, try once more
        up to the highest rate.
        """
        path = self.path
        with random_state_kept(), TemporaryDirectory() as scratch:
            self.path = Path(scratch)
            try:
                try:
                    return super().lr_find(*args, stop_div=stop_div, **kwargs)
                except (IndexError, RuntimeError, TypeError, ValueError):
                    if not stop_div or not len(self.recorder.losses) > 0:
                        raise
                    return super().lr_find(*args, stop_div=False, **kwargs)
            finally:
                self.path = path

    def export(self, fname="export.pkl", **kwargs):
        "Export as fastai does, without the changes that a training makes to `forward`."
        path = self.path
        self.path = Path()
        try:
            with plain_forward(self.model):
                super().export(path / fname, **kwargs)
        finally:
            self.path = path

    def settle(self) -> None:
        "Give the recorder the losses up to the last step."
        if self.captured_step:
            self.captured_step.settle()

    def _end_cleanup(self):
        self.captured_step = None
        super()._end_cleanup()

    def _set_device(self, b):
        there = getattr(self.dl, "device", None) == next(self.model.parameters()).device
        return b if there else super()._set_device(b)


def lean(
    learn: Learner,  # of fastai's own class
) -> LeanLearner:
    "Make the `Learner` that a fastai factory has built a `LeanLearner`, and return it."
    learn._waiting = {}
    learn.__class__ = LeanLearner
    return learn


class ChannelsLastImages(Callback):
    """Give a network its images with the channels of a pixel next to each other in memory.

    Convolutions take that form directly, and all later layers keep it. This is for networks that
    are known to be faster with it. torch's own `memory_format` leaves images of one channel as they
    are.
    """

    order = 99  # after everything that changes the images
    cuda_graph = INSIDE

    def before_batch(self):
        self.learn.xb = (channels_last(self.xb[0]), *self.xb[1:])


def channels_last(
    images: torch.Tensor,  # `[n, channels, height, width]`
) -> torch.Tensor:
    "Return the same images with the channels of a pixel next to each other in memory."
    _, channels, height, width = images.shape
    images = images.contiguous(memory_format=torch.channels_last)
    strides = (height * width * channels, 1, width * channels, channels)
    return images.as_strided(images.shape, strides)
