import copy

import fastai.callback.progress  # noqa: F401 - gives Learner no_bar
import pytest
import torch
from fastai.callback.core import Callback, event
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy

from digitfast import digit_dls, simple_learner
from digitfast.models.digit_nets import simple_net
from digitfast.training.lean import LeanLearner, channels_last


class Listens(Callback):
    "Note every event."
    def __init__(self, said, name, **kwargs):
        super().__init__(**kwargs)
        self.said = said
        self.who = name


for name in [name for name in vars(event) if not name.startswith("_")]:
    setattr(Listens, name,
            lambda self, name=name: self.said.append((self.who, name, self.training)))


class OnlySteps(Callback):
    order = -3
    def __init__(self, said): self.said = said
    def after_step(self): self.said.append("step")


class Joins(Callback):
    "Add a callback in the middle of a pass."
    def __init__(self, said): self.said = said

    def after_batch(self):
        if self.training and self.iter == 1:
            self.learn.add_cb(OnlySteps(self.said))


def make(cls, digits, net, said):
    from fastai.torch_core import set_seed
    set_seed(5)
    first, second = Listens(said, "first"), Listens(said, "second")
    second.order = -1
    second.run_valid = False
    dls = digit_dls(digits, bs=64, num_workers=0, device="cpu")
    return cls(dls, copy.deepcopy(net), lr=0.01, metrics=accuracy,
               loss_func=CrossEntropyLossFlat(), cbs=[first, second, Joins(said)])


def test_the_same_events_and_weights_as_fastais(digits):
    net = simple_net()
    heard, weights = [], []
    for cls in (Learner, LeanLearner):
        said = []
        learn = make(cls, digits, net, said)
        with learn.no_bar(), learn.no_logging():
            learn.fit(2)
            learn.get_preds()
            learn.validate()
        heard.append(said)
        weights.append(torch.cat([p.flatten() for p in learn.model.parameters()]))
    assert heard[0] == heard[1]
    assert "step" in heard[0] and len(heard[0]) > 100
    assert torch.equal(*weights)


def test_a_failing_callback_names_itself(digits):
    learn = make(LeanLearner, digits, simple_net(), [])

    class Fails(Callback):
        def after_pred(self): raise ValueError("no")
    with learn.no_bar(), pytest.raises(ValueError, match="Fails.*after_pred"):
        learn.fit(1, cbs=Fails())


def test_batches_of_another_device(digits):
    "A loader without a device of its own still moves its batches to the model's device."
    learn = make(LeanLearner, digits, simple_net(), [])
    learn.dl = [1]
    learn.model.to("meta")
    learn.dls.device = torch.device("meta")
    moved = learn._set_device((torch.zeros(1), torch.zeros(1)))
    assert [t.device.type for t in moved] == ["meta", "meta"]


@pytest.mark.parametrize("shape", [(4, 1, 5, 6), (4, 3, 5, 6)])
def test_channels_last(shape):
    "The values are the same, and a network keeps the format."
    x = torch.rand(shape)
    y = channels_last(x)
    assert torch.equal(x, y) and torch.equal(channels_last(y), x)
    assert y.stride(1) == 1
    out = torch.nn.Conv2d(shape[1], 8, 3)(y)
    assert out.is_contiguous(memory_format=torch.channels_last) and not out.is_contiguous()


class Counts(Callback):
    def __init__(self):
        self.batches = 0

    def after_batch(self):
        self.batches += 1


class Traces(Callback):
    def __init__(self):
        self.events = []

    def __call__(self, event_name):
        self.events.append(event_name)


def test_callbacks_that_come_and_go_between_trainings(digits):
    learn = simple_learner(digit_dls(digits, bs=32, num_workers=0))
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-3)
        counts = Counts()
        counts.learn = learn
        learn.cbs.append(counts)
        learn.fit(1, 1e-3)
        batches = counts.batches
        learn.cbs = learn.cbs.filter(lambda cb: cb is not counts)
        learn.fit(1, 1e-3)
    assert batches == counts.batches == 9 + 1  # of training and of validation


def test_a_callback_that_takes_all_events_gets_them(digits):
    found = []
    for cls in (Learner, LeanLearner):
        learn = cls(digit_dls(digits, bs=32, num_workers=0), simple_net(),
                    loss_func=CrossEntropyLossFlat(), path=".")
        traces = Traces()
        with learn.no_bar(), learn.no_logging():
            learn.fit(1, 1e-3, cbs=traces)
        found.append(traces.events)
    assert found[0] == found[1] and len(found[0]) > 80
