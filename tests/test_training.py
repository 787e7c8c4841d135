"""`train_learner`: its output, schedules, precisions and callbacks."""
import math
import re
import sys
from types import SimpleNamespace

import pytest
import torch
from fastai.callback.core import Callback, CancelValidException
from fastai.callback.tracker import SaveModelCallback
from fastai.callback.training import ShortEpochCallback

from digitfast import (
    BadSetting,
    History,
    LabelSmoothing,
    NonDigits,
    RandomAffine,
    UnknownName,
    WeightAverage,
    digit_dls,
    digit_learner,
    simple_learner,
    train_learner,
)
from digitfast.training import train as training


@pytest.fixture
def learn(digits):
    return simple_learner(digit_dls(digits, bs=32, device="cpu"))


def test_one_clean_line_per_epoch(learn, capsys):
    train_learner(learn, 3, 0.01)
    out, err = capsys.readouterr()
    lines = out.splitlines()
    heads = re.split("  +", lines[0].strip())
    assert heads == ["Epoch", "Training loss", "Validation loss", "Validation accuracy", "Time"]
    assert [line.split()[0] for line in lines[1:]] == ["0", "1", "2"]
    assert len({len(line) for line in lines}) == 1  # columns are aligned
    assert all(c.isprintable() or c == "\n" for c in out)
    assert not err
    assert f"{100 * learn.recorder.values[-1][2]:.2f} %" in lines[-1]


def test_the_learner_is_as_before(learn, capsys):
    class Fails(Callback):
        def after_batch(self): 1 / 0  # noqa: B018
    logger = learn.logger
    with pytest.raises(ZeroDivisionError):
        train_learner(learn, 1, 0.01, cbs=Fails())
    assert learn.logger == logger
    assert hasattr(learn, "progress")


def test_bars_on_a_terminal(learn, capsys, monkeypatch):
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda self: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    train_learner(learn, 1, 0.01)
    out = capsys.readouterr().out
    assert "Epoch 0" in out and "\x1b[" in out and "Validation accuracy" in out


def test_a_closed_pipe_does_not_end_the_training(learn, capsys, monkeypatch):
    import builtins
    lines = []

    def closed(line, **kwargs):
        lines.append(line)
        if len(lines) > 1:
            raise BrokenPipeError
    monkeypatch.setattr(builtins, "print", closed)
    train_learner(learn, 3, 0.01)
    assert len(learn.recorder.values) == 3
    assert len(lines) == 2


def test_schedules(learn, capsys):
    train_learner(learn, 1, 0.01, "one_cycle")
    assert max(learn.recorder.lrs) == pytest.approx(0.01, rel=0.05)
    assert min(learn.recorder.lrs) < 0.001
    train_learner(learn, 1, 0.02, "constant")
    assert set(learn.recorder.lrs) == {0.02}


@pytest.mark.parametrize("precision, dtype", [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision_applies_to_training_only(digits, tmp_path, precision, dtype):
    "The learner is unchanged after training."
    learn = digit_learner(digit_dls(digits, bs=32, device="cpu"), "digitnet")
    seen = set()
    hook = learn.model[0].register_forward_hook(
        lambda layer, x, out: seen.add((layer.training, out.dtype)))
    train_learner(learn, 1, 0.01, precision=precision)
    hook.remove()
    assert seen == {(True, dtype), (False, torch.float32)}
    assert not any("forward" in vars(module) for module in learn.model.modules())
    learn.export(tmp_path / "learner.pkl")
    pickled = (tmp_path / "learner.pkl").read_bytes()
    assert b"digitfast.training.precision" not in pickled and b"MixedPrecision" not in pickled


def test_resnet18_trains_the_same_with_products_for_convolutions(digits):
    from fastai.torch_core import set_seed
    losses = []
    for train in (lambda learn: train_learner(learn, 1, 0.001, precision="fp32"),
                  lambda learn: learn.fit_one_cycle(1, 0.001)):
        set_seed(1)
        learn = digit_learner(digit_dls(digits, bs=64, device="cpu"), "resnet18",
                              cbs=ShortEpochCallback(0.3))
        with learn.no_bar():
            train(learn)
        losses.append(torch.stack(learn.recorder.losses).as_subclass(torch.Tensor))
    assert len(losses[0]) > 1 and torch.allclose(*losses, rtol=1e-3)


def test_weight_average_is_the_mean_of_the_steps(digits):
    "Compared with the sum written out; validation uses the mean, the next step the last weights."
    learn = digit_learner(digit_dls(digits, bs=64, device="cpu"), "digitnet")
    steps, validated = [], []

    class Notes(Callback):
        order = 100  # after the average

        def copies(self): return [t.detach().clone() for t in self.model.state_dict().values()]
        def after_step(self): steps.append(self.copies())
        def before_validate(self): validated.append(self.copies())

        def before_train(self):
            if steps:
                assert all(torch.equal(a, b)
                           for a, b in zip(steps[-1], self.copies(), strict=True))
    start = [t.clone() for t in learn.model.state_dict().values()]
    train_learner(learn, 2, 0.01, cbs=[WeightAverage(0.5), Notes()])
    mean = start
    after_epoch = []
    for n, weights in enumerate(steps, start=1):
        decay = min(0.5, (1 + n) / (10 + n))
        mean = [decay * m + (1 - decay) * w if m.is_floating_point() else w
                for m, w in zip(mean, weights, strict=True)]
        if n % (len(steps) // 2) == 0:
            after_epoch.append(mean)
    for expected, found in (*zip(after_epoch, validated, strict=True),
                            (mean, learn.model.state_dict().values())):
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(expected, found, strict=True))
    assert not torch.allclose(mean[0], steps[-1][0], atol=1e-6)
    assert learn.recorder.values[-1][2] == learn.validate()[1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16", "fp16"])
@pytest.mark.parametrize("arch", ["digitnet", "resnet18"])
def test_precisions_on_a_gpu(digits, arch, precision):
    learn = digit_learner(digit_dls(digits, bs=32, batch_tfms=RandomAffine()), arch)
    seen = {}
    layer = next(module for module in learn.model.modules() if isinstance(module, torch.nn.Conv2d))
    hook = layer.register_forward_hook(
        lambda layer, x, out: seen.update({layer.training: out.dtype}))
    train_learner(learn, 3, 0.01, precision=precision, cbs=[WeightAverage(0.9), LabelSmoothing()])
    hook.remove()
    assert all(p.dtype == torch.float32 for p in learn.model.parameters())
    assert all(p.device.type == "cuda" for p in learn.model.parameters())
    assert learn.recorder.values[-1][0] < learn.recorder.values[0][0]
    assert "forward" not in vars(learn.model)
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    assert seen[False] == torch.float32 and seen[True] == dtypes.get(precision, seen[True])
    train_learner(learn.to_fp16(), 1, 0.01, precision=precision)
    assert learn.mixed_precision is not None


def test_the_best_epoch_is_kept_as_it_was_validated(digits, tmp_path):
    "fastai's own callback saves the weights after validation and loads them at the end."
    learn = digit_learner(digit_dls(digits, bs=64, device="cpu"), "digitnet", path=tmp_path)
    save = SaveModelCallback(monitor="valid_loss")
    train_learner(learn, 3, 0.02, cbs=[WeightAverage(0.5), save])
    best = min(values[1] for values in learn.recorder.values)
    with learn.no_bar():
        assert learn.validate()[0] == pytest.approx(best, rel=1e-4)


@pytest.mark.parametrize("arch", ["digitnet", "article"])  # logits, log-probabilities
def test_label_smoothing_is_torchs(digits, arch):
    "Training uses torch's own smoothed loss, and shows the plain one."
    learn = digit_learner(digit_dls(digits, bs=64, device="cpu"), arch)
    plain = torch.nn.CrossEntropyLoss()
    smoothed = torch.nn.CrossEntropyLoss(label_smoothing=0.3)
    seen = []

    class Look(Callback):
        def before_backward(self): seen.append((self.loss_grad, smoothed(self.pred, self.y)))

        def after_loss(self):
            assert self.loss.item() == pytest.approx(plain(self.pred, self.y).item(), rel=1e-5)
    train_learner(learn, 1, 0.01, cbs=[LabelSmoothing(0.3), Look()])
    assert seen and all(torch.allclose(a, b) for a, b in seen)


@pytest.mark.parametrize("kwargs, error", [
    ({"epochs": 0}, BadSetting),
    ({"lr": 0}, BadSetting),
    ({"lr": -1}, BadSetting),
    ({"lr": math.nan}, BadSetting),
    ({"schedule": "one-cycle"}, UnknownName),
    ({"precision": "bf6"}, UnknownName),
    ({"precision": "fp16"}, BadSetting)])
def test_wrong_arguments(learn, kwargs, error):
    with pytest.raises(error):
        train_learner(learn, **kwargs)


def test_non_digits_are_learned_beside_the_digits(digits, capsys):
    from digitfast.inference.calibration import probabilities

    class Watch(Callback):
        def after_loss(self):
            if self.training:
                assert len(self.x) == 48
                assert self.pred.shape == (48, 11)
                assert (self.y == 10).sum() == 16
                assert not self.pred[:, 10].any()
            else:
                assert self.pred.shape[1] == 10
                assert self.y.max() < 10

    torch.manual_seed(0)
    noise = torch.randint(0, 256, (60, 28, 28), dtype=torch.uint8)
    learn = digit_learner(digit_dls(digits, bs=32, device="cpu"), "simple")
    train_learner(learn, 12, 0.01, cbs=[NonDigits(noise, 0.5), LabelSmoothing(), Watch()])
    fresh = torch.randint(0, 256, (100, 1, 28, 28)) / 255
    with torch.no_grad():
        none = probabilities(learn.model.eval()(fresh), no_digit=True)[:, -1]
        digit = probabilities(learn.model(learn.dls.valid.one_batch()[0]), no_digit=True)[:, -1]
    assert (none > 0.5).mean() > 0.9 > 0.2 > (digit > 0.5).mean()
    with pytest.raises(BadSetting, match="non_digits .*not 0"):
        NonDigits(noise, 0)


def test_history_has_what_the_recorder_logs(digits, tmp_path):
    learn = simple_learner(digit_dls(digits, bs=32, num_workers=0), path=tmp_path)
    history = History("history.csv")
    train_learner(learn, 2, 0.01, cbs=history)
    file = tmp_path / "history.csv"
    lines = [line.split(",") for line in file.read_text().splitlines()]
    assert lines[0] == ["epoch", "train_loss", "valid_loss", "accuracy", "time"]
    values = [[float(x) for x in line[1:4]] for line in lines[1:]]
    assert values == [list(row) for row in learn.recorder.values] and len(values) == 2
    state = history.state_dict()
    train_learner(learn, 1, 0.01, cbs=history)  # overwrites the file
    assert len(file.read_text().splitlines()) == 2
    with learn.added_cbs(history):
        history.load_state_dict(state)
    assert [line.split(",") for line in file.read_text().splitlines()] == lines


@pytest.mark.parametrize(("allowed", "settings"), [(True, [-3, -1]), (False, [-3])])
def test_memory_is_kept_only_if_the_c_library_takes_both_settings(monkeypatch, allowed, settings):
    "If the C library refuses the first setting, it still adapts both."
    found = []

    def mallopt(setting, value):
        found.append(setting)
        return int(allowed)
    monkeypatch.setattr(training.ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    training.keep_freed_memory()
    assert found == settings
    assert training.LARGEST_KEPT <= 2**25  # the most that glibc accepts before 2.35


@pytest.mark.parametrize("images", [
    torch.rand(5, 28, 28), torch.zeros(5, 1, 28, 28, dtype=torch.uint8),
    torch.zeros(0, 28, 28, dtype=torch.uint8), [[1, 2]]],
    ids=["floats", "channels", "none", "lists"])
def test_images_of_non_digits_must_be_uint8_without_channels(images):
    with pytest.raises(BadSetting, match=r"must be a tensor of uint8 \[n, h, w\]"):
        NonDigits(images)


class NoValidation(Callback):
    order = -99

    def before_validate(self):
        raise CancelValidException


def test_validation_may_be_cancelled(learn, capsys):
    train_learner(learn, 2, 0.01, cbs=NoValidation())
    assert len(learn.recorder.losses) == 2 * len(learn.dls.train)
