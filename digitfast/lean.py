"""A `Learner` that does less around a batch, for networks whose batches take a millisecond or less."""
from collections.abc import Iterator
from contextlib import contextmanager

from fastai.callback.core import Callback, _inner_loop
from fastai.learner import Learner

from digitfast.cuda_graphs import CapturedStep, can_capture, train_with_graph, waits_for


class LeanLearner(Learner):
    """fastai's `Learner`, which asks only those callbacks for an event of a batch that wait for it.

    They get the same events in the same order as in fastai's own. On a GPU, training steps are replayed as a CUDA
    graph where that is known to be safe (`can_capture`).
    """

    captured_step: CapturedStep | None = None  # of the training that is under way
    _asked: list[Callback] | None = None  # who is asked for events of a batch; None: all

    def __init__(self, *args, **kwargs):
        self._waiting = {}  # event: the callbacks that have a method for it
        super().__init__(*args, **kwargs)

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
