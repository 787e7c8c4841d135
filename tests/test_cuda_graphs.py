"""Captured steps. On a CPU the step itself replaces the graph: all but the capture is the same."""
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.mixup import MixUp
from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback, TerminateOnNaNCallback
from fastai.callback.training import GradientAccumulation, GradientClip
from fastai.optimizer import SGD
from fastai.torch_core import set_seed
from fasttransform import Transform
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from digitfast import (
    BasicOptim,
    History,
    LabelSmoothing,
    NonDigits,
    RandomAffine,
    RandomPen,
    WeightAverage,
    digit_dls,
    digit_learner,
    resume_run,
    train_learner,
    train_run,
)
from digitfast.runs.checkpoints import Checkpoints
from digitfast.runs.folders import MODEL
from digitfast.training import cuda_graphs

HERE = [pytest.param("cpu", id="cpu"), pytest.param("cuda", id="gpu", marks=[
    pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")])]


@pytest.fixture
def replays(monkeypatch):
    "Return a list as long as the number of replayed steps. On a CPU the step replaces the graph."
    count = []
    record = cuda_graphs.record

    def counted(step, device):
        replay = step if device.type == "cpu" else record(step, device)
        return lambda: (count.append(1), replay())
    monkeypatch.setattr(cuda_graphs, "record", counted)
    monkeypatch.setattr(cuda_graphs, "DEVICES", {"cpu", "cuda"})
    # otherwise some algorithms add in another order each time
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    return count


def noise(n=60):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 28, 28), dtype=torch.uint8, generator=generator)


def everything():
    return [WeightAverage(0.9), LabelSmoothing(), NonDigits(noise(), 0.5), GradientClip(0.5)]


def trained(digits, device, arch="digitnet", cbs=everything, opt_func=None, epochs=2, **kwargs):
    set_seed(3)
    dls = digit_dls(digits, bs=32, device=device, batch_tfms=RandomAffine(), **kwargs)
    learn = digit_learner(dls, arch, **({"opt_func": opt_func} if opt_func else {}))
    with learn.no_bar(), learn.no_logging():
        return train_learner(learn, epochs, 0.01, precision="fp32", cbs=cbs())


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("arch, cbs, opt_func", [
    ("digitnet", everything, None),
    ("digitnet", list, SGD),
    ("simple", list, BasicOptim),
    ("article", list, None),
    ("resnet18", list, None)])
def test_the_same_numbers_as_plain_steps(digits, replays, monkeypatch, device, arch, cbs, opt_func):
    found = []
    for devices in ({device}, set()):
        monkeypatch.setattr(cuda_graphs, "DEVICES", devices)
        learn = trained(digits, torch.device(device), arch, cbs, opt_func)
        state, recorder = learn.model.state_dict(), learn.recorder
        found.append([torch.cat([t.detach().float().flatten() for t in state.values()]).cpu(),
                      torch.stack(recorder.losses).as_subclass(torch.Tensor),
                      recorder.lrs, [list(values) for values in recorder.values],
                      recorder.hps, recorder.iters])
    (weights, losses, *rest), (plain_weights, plain_losses, *plain_rest) = found
    assert len(replays) == 18 - cuda_graphs.WARM_UP
    assert torch.equal(weights, plain_weights)
    assert torch.equal(losses, plain_losses)
    assert rest == plain_rest


class Prints(Callback):
    def after_epoch(self): print("an epoch")


class Looks(Callback):
    def after_pred(self): self.seen = self.pred


class Own(LabelSmoothing):
    "Does more than its base class, and so is not known to be safe."
    def after_loss(self): print("loss")


@pytest.mark.parametrize("cb, captured", [
    (None, True),
    (Prints(), True),
    (EarlyStoppingCallback(), True),
    (SaveModelCallback(), True),
    (Looks(), False),
    (Own(), False),
    (MixUp(), False),
    (GradientAccumulation(64), False),
    (TerminateOnNaNCallback(), False),
    (Callback(after_step=lambda self: None), False),
    (History("h.csv"), True)],
    ids=lambda value: type(value).__name__)
def test_callbacks(digits, replays, tmp_path, cb, captured):
    dls = digit_dls(digits, bs=32, device="cpu")
    learn = digit_learner(dls, "simple", path=tmp_path)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1, 0.01, cbs=cb)
    assert bool(replays) == captured


def oversampled(dls):
    dls.train = dls.train.new(get_idxs=lambda: list(range(300)) * 2)


def read_from_files(dls):
    dls.add_tfms([Transform(lambda image: image)], "after_item")


@pytest.mark.parametrize("change", [oversampled, read_from_files])
def test_other_images_than_those_in_memory_are_not_captured(digits, replays, change):
    dls = digit_dls(digits, bs=32, device="cpu")
    change(dls)
    learn = digit_learner(dls, "simple")
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1, 0.01)
    assert not replays and len(learn.recorder.losses) >= 9


def test_a_users_callback_may_change_the_training_between_epochs(digits, replays, monkeypatch):
    class Freezes(Callback):
        def before_epoch(self):
            if self.epoch == 1:
                self.learn.model[1].weight.requires_grad_(False)
    weights = []
    for devices in ({"cpu"}, set()):
        monkeypatch.setattr(cuda_graphs, "DEVICES", devices)
        learn = trained(digits, torch.device("cpu"), "simple", lambda: [Freezes()])
        weights.append(learn.model[1].weight.clone())
    assert len(replays) == 18 - 2 * cuda_graphs.WARM_UP
    assert torch.equal(*weights)


class Module(torch.nn.Flatten):
    "A layer of a user's own."


def test_what_is_not_captured(digits, replays):
    "Layers, losses, hooks, transforms and loaders that may do something else in each step."
    def fit(change=lambda learn: None, **kwargs):
        learn = digit_learner(digit_dls(digits, bs=32, device="cpu", **kwargs), "simple")
        change(learn)
        with learn.no_bar(), learn.no_logging():
            learn.fit(1)
        found = bool(replays)
        replays.clear()
        return found

    def metrics(learn): learn.recorder.train_metrics = True
    def loss(learn): learn.loss_func = lambda pred, y: cross_entropy(pred, y)
    def layer(learn): learn.model[0] = Module()
    def hook(learn): learn.model[1].register_forward_hook(lambda *_: None)
    def weight_hook(learn): learn.model[1].weight.register_hook(lambda g: None)
    def patched(learn): learn.one_batch = learn.one_batch
    def torchs_loss(learn): learn.loss_func = cross_entropy
    assert fit() and fit(torchs_loss)
    assert not any(map(fit, (metrics, loss, layer, hook, weight_hook, patched)))
    def elsewhere(learn): learn.dls.train._device = torch.device("meta")
    assert not fit(elsewhere)
    assert not fit(batch_tfms=RandomPen())
    assert not fit(resident=False, num_workers=0)


def test_nothing_is_left_after_a_training(digits, replays, tmp_path):
    learn = trained(digits, torch.device("cpu"))
    assert learn.captured_step is None and learn._asked is None
    assert "_do_grad_opt" not in vars(learn)
    assert not any(p.grad is not None and p.grad.any() for p in learn.model.parameters())
    learn.export(tmp_path / "learner.pkl")


def test_a_last_batch_that_is_smaller(digits, replays, monkeypatch):
    weights = []
    for devices in ({"cpu"}, set()):
        monkeypatch.setattr(cuda_graphs, "DEVICES", devices)
        set_seed(1)
        learn = digit_learner(digit_dls(digits, bs=32, device="cpu"), "simple")
        learn.dls.train.drop_last = False
        with learn.no_bar(), learn.no_logging():
            learn.fit(2)
        weights.append(learn.model[1].weight.clone())
        assert len(learn.recorder.losses) == 20
    assert torch.equal(*weights) and len(replays) == 18 - cuda_graphs.WARM_UP


def test_a_step_that_cannot_be_captured_says_what_to_do(digits, replays, monkeypatch):
    def fails(step, device):
        raise RuntimeError("operation not permitted when stream is capturing")
    monkeypatch.setattr(cuda_graphs, "record", fails)
    learn = digit_learner(digit_dls(digits, bs=32, device="cpu"), "simple")
    with (learn.no_bar(), learn.no_logging(),
          pytest.raises(RuntimeError, match="not permitted") as caught):
        learn.fit(1)
    assert "DEVICES.clear()" in caught.value.__notes__[0]
    cuda_graphs.DEVICES.clear()
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)


def test_an_error_leaves_the_losses_up_to_it(digits, replays, monkeypatch):
    learn = digit_learner(digit_dls(digits, bs=32, device="cpu"), "simple")
    step = BasicOptim.step

    def fails(self):
        if len(replays) == 4:
            raise KeyboardInterrupt
        step(self)
    monkeypatch.setattr(BasicOptim, "step", fails)
    learn.opt_func = BasicOptim
    with learn.no_bar(), learn.no_logging(), pytest.raises(KeyboardInterrupt):
        learn.fit(1)
    assert len(learn.recorder.losses) == len(learn.recorder.lrs) == cuda_graphs.WARM_UP + 3
    assert learn._asked is None


def run(digits, folder):
    "Train a run of three epochs, of nine steps each."
    return train_run(str(digits), epochs=3, bs=32, augment=0.5, ema=0.9, non_digits=0.4,
                     runs=str(folder))


def same_weights(first, second):
    first, second = (load_file(run.path / MODEL) for run in (first, second))
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("epoch, batch", [(1, 6), (1, 8), (2, 1)])
def test_a_resumed_training_comes_to_the_same_weights(digits, replays, tmp_path, monkeypatch,
                                                      epoch, batch):
    whole = run(digits, tmp_path / "a")
    after_batch = Checkpoints.after_batch

    def stops(self):
        self.stop = (self.epoch, self.iter) == (epoch, batch) and self.training
        after_batch(self)
    monkeypatch.setattr(Checkpoints, "after_batch", stops)
    with pytest.raises(KeyboardInterrupt):
        run(digits, tmp_path / "b")
    monkeypatch.setattr(Checkpoints, "after_batch", after_batch)
    resumed = resume_run("digitnet", tmp_path / "b")
    assert replays and same_weights(whole, resumed)
    assert (whole.path / "steps.csv").read_text() == (resumed.path / "steps.csv").read_text()
