"""A `Learner` that does less around a batch, for networks whose batches take a millisecond or less."""
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import fastai.callback.schedule  # noqa: F401 - gives Learner lr_find
import torch
from fastai.callback.core import Callback, _inner_loop
from fastai.learner import Learner

from digitfast.training.cuda_graphs import INSIDE, CapturedStep, can_capture, train_with_graph, waits_for
from digitfast.training.precision import plain_forward
from digitfast.training.state import random_state_kept


class LeanLearner(Learner):
    """fastai's `Learner`, which asks only those callbacks for an event of a batch that wait for it.

    They get the same events in the same order as in fastai's own. On a GPU, training steps are replayed as a CUDA
    graph where that is known to be safe (`can_capture`). Without a `path`, files go to the current folder, and not
    among the digits; a file that it is exported to does not say where it was made.
    """

    captured_step: CapturedStep | None = None  # of the training that is under way
    _asked: list[Callback] | None = None  # who is asked for events of a batch; None: all

    def __init__(self, *args, path: str | Path | None = None, **kwargs):
        self._waiting = {}  # event: the callbacks that have a method for it
        super().__init__(*args, path=Path(path or "."), **kwargs)

    def __getstate__(self):
        return {**super().__getstate__(), "path": str(self.path), "_waiting": {}}  # a Path opens on its system only

    def __setstate__(self, state: dict):
        super().__setstate__({**state, "path": Path(state["path"])})

    def add_cb(self, cb):
        self._waiting.clear()
        return super().add_cb(cb)

    def remove_cb(self, cb):
        self._waiting.clear()
        return super().remove_cb(cb)

    def __call__(self, event_name):
        if event_name not in _inner_loop:
            super().__call__(event_name)
            return
        waiting = self._waiting.get(event_name)
        if waiting is None:
            asked = self.cbs.sorted("order") if self._asked is None else self._asked
            waiting = self._waiting[event_name] = [cb for cb in asked if waits_for(cb, event_name)]
        for cb in waiting:
            cb(event_name)

    @contextmanager
    def asking(
        self,
        cbs: list[Callback],  # in their order
    ) -> Iterator[None]:
        "While the context lasts, only `cbs` are asked for events of a batch."
        before = self._asked, self._waiting
        self._asked, self._waiting = cbs, {}
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
        """As fastai's, which leaves no trace here: the random generators are as before, and so is the folder.

        Where the loss rises so soon that nothing can be suggested, as of a trained network, it is tried once more to
        the highest rate.
        """
        path = self.path
        with random_state_kept(), TemporaryDirectory() as self.path:
            self.path = Path(self.path)
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
        "As fastai's."
        path = self.path
        self.path = Path()
        try:
            with plain_forward(self.model):
                super().export(path / fname, **kwargs)
        finally:
            self.path = path

    def settle(self) -> None:
        "Bring the recorder up to the last step that was done."
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
    "The same `Learner`, made a `LeanLearner`: for those that a factory of fastai's has made."
    learn._waiting = {}
    learn.__class__ = LeanLearner
    return learn


class ChannelsLastImages(Callback):
    """Gives a network its images with the channels of a pixel next to each other in memory: convolutions take them at
    once, and all layers go on so. It is for networks that are known to gain from it.

    torch's own `memory_format` leaves images of one channel as they are.
    """

    order = 99  # when the images are as the network gets them
    cuda_graph = INSIDE

    def before_batch(self):
        self.learn.xb = (channels_last(self.xb[0]), *self.xb[1:])


def channels_last(
    images: torch.Tensor,  # `[n, channels, height, width]`
) -> torch.Tensor:
    "The same images, laid out with the channels of a pixel next to each other."
    _, channels, height, width = images.shape
    images = images.contiguous(memory_format=torch.channels_last)
    return images.as_strided(images.shape, (height * width * channels, 1, width * channels, channels))
