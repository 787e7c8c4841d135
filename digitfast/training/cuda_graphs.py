"""Training steps on a GPU, replayed as a CUDA graph.

A step of a small network is a hundred kernels of a few microseconds each, and launching them one by
one from Python takes ten times as long as the arithmetic. `train_with_graph` captures one step,
from drawing the batch to the gradients, and replays it with a single launch. Optimiser, schedule
and running means stay outside: they take few launches, and so any optimiser and schedule works,
with the same numbers as in plain steps.

Only what is known to be safe is captured (`can_capture`): a graph repeats kernels, not the Python
around them.
"""
import time
from collections.abc import Callable
from contextlib import contextmanager

import torch
from fastai.callback.core import (
    Callback,
    CancelBackwardException,
    CancelStepException,
    TrainEvalCallback,
    event,
)
from fastai.callback.progress import ProgressCallback
from fastai.callback.schedule import ParamScheduler
from fastai.callback.training import GradientClip
from fastai.data.transforms import IntToFloatTensor, Normalize
from fastai.learner import CastToTensor, Learner, Recorder
from fastai.torch_core import get_model

from digitfast.data.augment import RandomAffine

WARM_UP = 3  # plain steps before the captured one: libraries choose algorithms and allocate memory
DEVICES = {"cuda"}  # where steps are captured; clear it to capture none
INSIDE, BESIDE = "inside the graph", "beside the graph"
#: Where fastai's callbacks get the events of a captured batch; the recorder gets the losses later.
#: digitfast's own callbacks say so in an attribute `cuda_graph`.
_FASTAI = {CastToTensor: INSIDE, TrainEvalCallback: BESIDE, ParamScheduler: BESIDE,
           GradientClip: BESIDE, ProgressCallback: BESIDE, Recorder: None}
#: Transforms that do nothing but launch kernels.
_TRANSFORMS = {IntToFloatTensor, Normalize, RandomAffine}
#: Packages whose networks and losses do nothing but launch kernels.
_PACKAGES = {"torch", "torchvision", "fastai", "digitfast"}
_BATCH_EVENTS = [name for name in vars(event)
                 if name.endswith(("_batch", "_pred", "_loss", "_backward", "_step"))]


def waits_for(cb: Callback, event_name: str) -> bool:
    "Return whether `cb` has a method for an event."
    overridden = type(cb).__call__ is not Callback.__call__  # which then gets every event
    return overridden or hasattr(type(cb), event_name) or event_name in vars(cb)


def can_capture(
    learn: Learner,  # in a pass over the training images
) -> bool:
    """Return whether the steps of this pass can be a CUDA graph with the same results.

    They can on a GPU with the images in its memory, if callbacks, transforms, network and loss are
    known to do nothing but launch the same kernels in each step.
    """
    dl, model = learn.dl, learn.model
    return (
        "index_batches" in vars(type(dl)) and len(dl) > WARM_UP + 1
        # a replaced `get_idxs` can give more images than there are
        and not dl.reads_files() and "get_idxs" not in vars(dl)
        and dl.device is not None and torch.device(dl.device).type in DEVICES
        and get_model(model) is model and next(model.parameters()).device == dl.device
        and not {"one_batch", "_do_one_batch", "_do_grad_opt", "_backward"} & set(vars(learn))
        and all(type(tfm) in _TRANSFORMS for tfm in dl.after_batch.fs)
        and all(map(_is_known, learn.cbs))
        and not any(cb.train_metrics for cb in _recorders(learn))
        and all(map(_is_plain, model.modules())) and _package(learn.loss_func) in _PACKAGES)


def train_with_graph(
    learn: Learner,  # for which `can_capture` is true
) -> None:
    """Train on all batches of a pass: the first few as plain steps, the others by a graph.

    A graph from an earlier pass is used again where it still fits.
    """
    dl = learn.dl
    learn.n_iter = len(dl)
    batches = dl.index_batches()
    whole = sum(len(batch) == dl.bs for batch in batches)  # the last one may be smaller
    if learn.captured_step and learn.captured_step.fits():
        learn.captured_step.run(batches[:whole], 0)
    else:
        begin(learn, batches).run(batches[:whole], WARM_UP)
    for i in range(whole, len(batches)):
        learn.one_batch(i, dl.batch(batches[i]))
    dl.after_iter()


def begin(
    learn: Learner,  # for which `can_capture` is true
    batches: tuple[torch.Tensor, ...],  # for each batch of the pass, the indices of its images
) -> "CapturedStep":
    "Train on the first batches in plain steps, and capture the next one."
    learn.captured_step = None  # free its memory
    with _side_stream(learn.dl.device):
        for i in range(WARM_UP):
            learn.one_batch(i, learn.dl.batch(batches[i]))
    learn.captured_step = CapturedStep(learn)
    return learn.captured_step


class CapturedStep:
    "A training step of a `Learner` as a CUDA graph, from drawing the batch to the gradients."

    def __init__(
        self,
        learn: Learner,  # whose next step is the one to capture
    ):
        dl = learn.dl
        self.learn = learn
        self.dl = dl
        self.steps = len(dl)
        self.inside = _at_place(learn, INSIDE)
        self.beside = _at_place(learn, BESIDE)
        self.recorders = _recorders(learn)
        #: The user's own callbacks, which may change anything between two passes.
        self.strangers = [cb for cb in learn.cbs if _package(cb) not in _PACKAGES]
        #: Indices of the images, for each step of a pass.
        self.order = torch.zeros(self.steps, dl.bs, dtype=torch.int64, device=dl.device)
        self.losses = torch.zeros(self.steps, device=dl.device)
        self.place = torch.zeros(1, dtype=torch.int64, device=dl.device)  # number of the step
        self.done = self.settled = 0  # steps of the pass; those whose losses the recorder has
        self.gradients = []
        try:
            self.replay = record(self._step, dl.device)
        except RuntimeError as e:
            e.add_note("a training step could not be captured as a CUDA graph; for plain steps, "
                       "call digitfast.training.cuda_graphs.DEVICES.clear()")
            raise

    def fits(self) -> bool:
        "Return whether the graph is still the step of `learn`."
        inside = _at_place(self.learn, INSIDE)
        return (self.dl is self.learn.dl and self.steps == len(self.dl) and not self.strangers
                and sorted(map(id, inside)) == sorted(map(id, self.inside)))

    def run(
        self,
        batches: tuple[torch.Tensor, ...],  # for each batch of the pass, the indices of its images
        done: int,  # number of batches that have been trained on already
    ) -> None:
        "Train on `batches`, with the events of each step for the callbacks beside the graph."
        settle_every = 0.5  # seconds between reading the losses, for progress bars
        learn = self.learn
        self.order[done:len(batches)] = torch.stack(batches[done:])
        self.place.fill_(done)
        self.done = self.settled = done
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        looked = time.monotonic()
        try:
            with learn.asking(self.beside):
                for i in range(done, len(batches)):
                    learn.iter = i
                    learn("before_batch")
                    self.replay()
                    learn._with_events(learn._step, "step", CancelStepException)
                    self.done = i + 1
                    for recorder in self.recorders:
                        recorder.lrs.append(learn.opt.hypers[-1]["lr"])
                    if time.monotonic() - looked > settle_every:
                        self.settle()
                        looked = time.monotonic()
                    learn("after_batch")
        finally:
            self.settle()
            learn.opt.zero_grad()

    def settle(self) -> None:
        "Give the recorder the losses since the last call; until then they stay on the GPU."
        learn = self.learn
        for loss in self.losses[self.settled:self.done].cpu():
            learn.loss = loss
            for recorder in self.recorders:
                recorder.smooth_loss.accumulate(learn)
                recorder.losses.append(recorder.smooth_loss.value)
                learn.smooth_loss = recorder.losses[-1]
        self.settled = self.done

    def _step(self) -> None:
        "Do one step; this is what is captured."
        learn = self.learn
        learned = [p for p in learn.model.parameters() if p.requires_grad]
        for parameter in learned:
            parameter.grad = None  # backward then writes gradients, instead of adding to them
        batch = self.order.index_select(0, self.place)[0]
        learn._do_grad_opt = lambda: learn._with_events(learn._backward, "backward",
                                                        CancelBackwardException)
        try:
            with learn.asking(self.inside):
                learn.one_batch(learn.iter, self.dl.batch(batch))
        finally:
            del learn._do_grad_opt
        self.losses.index_copy_(0, self.place, learn.loss.detach().float().view(1))
        self.place.add_(1)
        self.gradients = [(p, p.grad) for p in learned]


def record(
    step: Callable[[], None],  # which does nothing but launch kernels
    device: torch.device,  # the GPU that they run on
) -> Callable[[], None]:
    "Capture `step` without running it, and return a function that launches its kernels."
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(device), torch.cuda.graph(graph):
        step()
    return graph.replay


@contextmanager
def _side_stream(device: torch.device):
    "While the context lasts, run kernels on another stream, as they must be before a capture."
    if device.type != "cuda":
        yield
        return
    here, side = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    side.wait_stream(here)
    with torch.cuda.stream(side):
        yield
    here.wait_stream(side)


def _place(cb: Callback) -> str | None:
    "Return where `cb` gets the events of a captured batch; None if it gets none."
    if any(waits_for(cb, name) for name in _BATCH_EVENTS):
        # an inherited `cuda_graph` does not count, since a subclass may do more
        return _FASTAI.get(type(cb)) or vars(type(cb)).get("cuda_graph")
    return None


def _at_place(learn: Learner, place: str) -> list[Callback]:
    "Return the callbacks at one place, `INSIDE` or `BESIDE`, in their order."
    return sorted((cb for cb in learn.cbs if _place(cb) == place), key=lambda cb: cb.order)


def _is_known(cb: Callback) -> bool:
    "Return whether `cb` waits for no event of a batch, or is known to be safe with it."
    return (type(cb) in _FASTAI or _place(cb) is not None
            or not any(waits_for(cb, name) for name in _BATCH_EVENTS))


def _is_plain(module: torch.nn.Module) -> bool:
    "Return whether a part of a network is from a known package, and has no hooks."
    return _package(module) in _PACKAGES and not (
        module._forward_hooks or module._forward_pre_hooks
        or module._backward_hooks or module._backward_pre_hooks
        or any(p._backward_hooks or p._post_accumulate_grad_hooks
               for p in module.parameters(recurse=False)))


def _package(thing) -> str:
    "Return the package in which a function, or the class of an object, is defined."
    module = getattr(thing, "__module__", None) or type(thing).__module__
    return module.partition(".")[0]


def _recorders(learn: Learner) -> list[Recorder]:
    return [cb for cb in learn.cbs if type(cb) is Recorder]
