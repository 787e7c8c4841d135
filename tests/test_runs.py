import json
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest
import torch

from digitfast import (
    BadSetting,
    DigitError,
    Diverged,
    RunNotFound,
    UnknownName,
    find_run,
    list_runs,
    resume_run,
    train_run,
)
from digitfast.data.facts import source_facts
from digitfast.errors import BadData
from digitfast.runs import run as runs
from digitfast.runs.folders import is_unfinished, unfinished_runs
from digitfast.runs.settings import named_runs, read_settings
from digitfast.training import callbacks
from digitfast.training.recipe import Recipe


@pytest.fixture
def quick(digits, tmp_path, monkeypatch):
    "The settings of a one-second run on the small digits, in an empty folder."
    monkeypatch.chdir(tmp_path)
    return {"source": str(digits), "arch": "simple", "bs": 32, "lr": 0.01}


def test_run_folder_has_everything(quick, digits):
    run = train_run(**quick, epochs=3)
    assert sorted(f.name for f in run.path.iterdir()) == [
        "history.csv", "learner.pkl", "model.safetensors", "settings.ini", "steps.csv",
        "summary.json"]
    summary = json.loads((run.path / "summary.json").read_text())
    assert summary == run.summary == find_run("simple").summary
    assert summary["data"]["sha256"] == source_facts(digits)["sha256"]
    assert summary["settings"].keys() == {setting.name for setting in fields(Recipe)}
    assert summary["versions"].keys() >= {"python", "torch", "fastai", "digitfast"}
    assert summary["device"]["name"]
    history = run.history()
    assert [row["epoch"] for row in history] == ["0", "1", "2"]
    assert float(history[-1]["accuracy"]) == summary["accuracy"]
    steps = run.steps()
    assert [step for step, _, _ in steps] == list(range(1, 3 * 9 + 1))
    assert max(lr for _, lr, _ in steps) == pytest.approx(quick["lr"], rel=0.05)
    assert steps[-1][1] < 1e-4
    assert steps[-1][2] == pytest.approx(summary["training_loss"], rel=1e-4)
    low, high = summary["accuracy_interval_95"]
    assert summary["precision"] == "fp32"  # what "auto" means for a network without convolutions
    assert low < summary["accuracy"] < high and summary["validation_images"] == 120
    learn = run.learner()
    loss, accuracy = learn.validate(dl=learn.dls.test_dl(digits / "testing", with_labels=True))
    assert accuracy == pytest.approx(summary["accuracy"])
    assert loss == pytest.approx(summary["validation_loss"], rel=1e-4)


def test_a_long_training_keeps_some_of_its_steps(tmp_path):
    from digitfast.runs.folders import KEPT_STEPS, Run, write_steps
    run = Run(tmp_path, {})
    assert run.steps() == []  # from before there was such a file
    for n in (0, 1, KEPT_STEPS, KEPT_STEPS + 1, 5 * KEPT_STEPS - 1):
        losses = [torch.tensor(float(i)) for i in range(n)]
        write_steps(tmp_path, [i / 1000 for i in range(n)], losses)
        steps = run.steps()
        assert min(n, KEPT_STEPS / 2) <= len(steps) <= KEPT_STEPS + 1
        assert all(lr == pytest.approx((step - 1) / 1000) for step, lr, _ in steps)
        assert all(loss == step - 1 for step, _, loss in steps)
        assert not n or (steps[0][0], steps[-1][0]) == (1, n)


def test_tensorboard_has_the_curves(quick):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    run = train_run(**quick, epochs=3, log="tensorboard")
    read = EventAccumulator(str(run.path / "tensorboard"))
    read.Reload()
    history, steps = run.history(), run.steps()
    for name in ("accuracy", "valid_loss"):
        expected = [float(row[name]) for row in history]
        assert [e.value for e in read.Scalars(name)] == pytest.approx(expected)
        assert [e.step for e in read.Scalars(name)] == [9, 18, 27]
    training = {e.step: e.value for e in read.Scalars("train_loss")}
    assert training == pytest.approx({step: loss for step, _, loss in steps}, rel=1e-4)
    rates = {e.step: e.value for e in read.Scalars("lr_0")}
    assert rates == pytest.approx({step: lr for step, lr, _ in steps}, rel=1e-4)
    plain = train_run(**quick, epochs=3)  # it changes nothing
    assert plain.summary["validation_loss"] == run.summary["validation_loss"]
    assert "TensorBoardCallback" not in {type(cb).__name__ for cb in run.learner().cbs}


def weights(run):
    return list(run.learner().model.parameters())


def test_its_settings_repeat_the_run(quick):
    first = train_run(**quick, mom=0.8, opt="sgd", schedule="constant", wd=0.01)
    again = train_run(**read_settings(path=first.path / "settings.ini"))
    assert again.path.name == "simple-2" and first.path.name == "simple"
    assert again.summary["validation_loss"] == first.summary["validation_loss"]
    assert all(torch.equal(p, q) for p, q in zip(weights(first), weights(again), strict=True))
    other = train_run(**{**quick, "seed": 1})
    assert not torch.equal(weights(other)[0], weights(first)[0])
    assert [run.path.name for run in list_runs()] == ["simple", "simple-2", "simple-3"]


def test_holdout_leaves_the_test_split_alone(quick):
    summary = train_run(**quick, holdout=0.2).summary
    assert summary["validation_images"] == 60 and summary["data"]["training_images"] == 240
    assert summary["validated_on"] == "held-out training images"


@pytest.mark.parametrize("name", named_runs())
def test_named_runs_run(quick, name):
    settings = {**read_settings(name), "source": quick["source"], "epochs": 1}
    assert train_run(**settings).summary["settings"]["arch"] == settings["arch"]


def test_momentum_reaches_optimiser_and_schedule(quick):
    learn = train_run(**quick, opt="sgd", mom=0.5).learner()
    assert learn.moms == (0.5, 0.5, 0.5) and learn.opt_func.keywords == {"mom": 0.5}


def test_what_is_for_training_only_changes_the_run(quick):
    "An export has none of it: it is as accurate as the run says."
    plain = weights(train_run(**quick))
    for changed in ({"augment": 1.0}, {"ema": 0.9}, {"label_smoothing": 0.2}):
        assert not torch.equal(plain[0], weights(train_run(**quick, **changed))[0])
    run = train_run(**quick, augment=1.0, ema=0.9, label_smoothing=0.1)
    learn = run.learner()
    dl = learn.dls.test_dl(Path(quick["source"]) / "testing", with_labels=True)
    assert learn.validate(dl=dl)[1] == pytest.approx(run.summary["accuracy"])
    names = {type(cb).__name__ for cb in learn.cbs}
    assert not {"History", "WeightAverage", "LabelSmoothing"} & names


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_a_run_that_stops_before_its_first_checkpoint_leaves_nothing(
        quick, monkeypatch, tmp_path, stop):
    def stops(*args, **kwargs):
        raise stop("stopped")
    monkeypatch.setattr(runs, "train_learner", stops)
    with pytest.raises(stop) as e:
        train_run(**quick)
    assert not list((tmp_path / "runs").iterdir()) and not hasattr(e.value, "__notes__")


def test_an_unfinished_run_is_not_taken_for_whole(quick, monkeypatch, tmp_path):
    def fails(*args):
        raise RuntimeError("disk full")
    with monkeypatch.context() as patch:
        patch.setattr("digitfast.runs.results.save_learner", fails)
        with pytest.raises(RuntimeError) as e:
            train_run(**quick)
    assert e.value.__notes__ == ["resume with: digitfast fit --resume runs/simple"]
    assert list_runs() == [] and unfinished_runs() == [Path("runs/simple")]
    with pytest.raises(RunNotFound, match="simple is not finished.*--resume runs/simple"):
        find_run("simple")
    assert train_run(**quick).path.name == "simple-2"
    message = "no unfinished run named 'complex'. Unfinished runs in runs/: simple"
    with pytest.raises(RunNotFound, match=message):
        resume_run("complex")
    assert resume_run("simple").path.name == "simple"
    assert len(list_runs()) == 2
    assert unfinished_runs() == []


def test_runs_are_found_by_name_and_by_path(quick, tmp_path):
    run = train_run(**quick, name="mine")
    for name in ("mine", "runs/mine", tmp_path / "runs/mine"):
        assert find_run(name).summary == run.summary
    with pytest.raises(RunNotFound, match="no run 'yours'. Runs: mine"):
        find_run("yours")
    with pytest.raises(RunNotFound, match="none yet"):
        find_run("yours", "elsewhere")


def test_a_relative_source_is_kept_as_an_absolute_one(quick, digits, monkeypatch):
    monkeypatch.chdir(digits.parent)
    run = train_run(**{**quick, "source": digits.name})
    assert run.summary["settings"]["source"] == str(digits)


@pytest.mark.parametrize("holdout", [0.0, 0.2])
def test_a_training_that_diverges_ends_there(quick, tmp_path, holdout, capsys):
    message = r"diverged in epoch 0: the loss is (nan|inf) after \d+ steps; .* smaller"
    with pytest.raises(Diverged, match=message):
        train_run(**{**quick, "lr": 1e30, "epochs": 3, "holdout": holdout})
    assert not list((tmp_path / "runs").iterdir()) and "nan" not in capsys.readouterr().out


def test_a_training_that_diverges_later_keeps_its_last_checkpoint(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks.DivergenceCheck, "after_train",
                        lambda self: self._check(float("nan") if self.epoch == 2 else 0.0))
    with pytest.raises(Diverged, match="in epoch 2") as caught:
        train_run(**{**quick, "epochs": 3})
    assert is_unfinished(tmp_path / "runs/simple") and not getattr(caught.value, "__notes__", None)


@pytest.mark.parametrize("settings, words", [
    ({"epochs": 1}, "trained for only 9 steps, .* try epochs=17, or smaller batches: bs=15"),
    ({"epochs": 1, "lr": 1e-9}, "hardly better than one that always says 0")])
def test_a_result_that_cannot_be_trusted_is_reported(quick, settings, words):
    with pytest.warns(UserWarning, match=words):
        train_run(**{**quick, **settings})


def test_more_classes_than_a_file_can_have_are_refused_before_training(
        quick, tmp_path, monkeypatch):
    monkeypatch.setattr("digitfast.runs.prepare.MOST_CLASSES", 9)
    with pytest.raises(BadSetting, match="has 10 classes; a run can have 9 at most"):
        train_run(**quick)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("valid, words", [
    ("testing", "120 test images"), ("valid", "120 validation images")])
def test_a_split_is_called_what_it_is(quick, copy_of_digits, valid, words):
    if valid == "valid":
        (copy_of_digits / "training").rename(copy_of_digits / "train")
        (copy_of_digits / "testing").rename(copy_of_digits / "valid")
    assert train_run(**{**quick, "source": str(copy_of_digits)}).result.endswith("on " + words)


def test_a_damaged_summary_hides_no_other_run(quick, tmp_path):
    train_run(**quick)
    for i, text in enumerate(["", "[1]", "{}"]):
        (tmp_path / f"runs/damaged{i}").mkdir()
        (tmp_path / f"runs/damaged{i}/summary.json").write_text(text)
    assert [run.path.name for run in list_runs()] == ["simple"]
    with pytest.raises(RunNotFound, match="damaged1/summary.json is damaged"):
        find_run("damaged1")


@pytest.mark.parametrize("wrong, error, message", [
    ({"seed": -1}, BadSetting, "seed must .*not -1"), ({"seed": 2**70}, BadSetting, "seed must"),
    ({"size": 0}, BadSetting, "size must .*not 0"),
    ({"opt": "sdg"}, UnknownName, "Did you mean sgd"),
    ({"arch": "resnet81"}, UnknownName, "resnet18"),
    ({"epochs": 0}, BadSetting, "epochs must .*not 0"),
    ({"lr": -1.0}, BadSetting, "lr must .*not -1"),
    ({"mom": 1.0}, BadSetting, "mom must .*not 1"),
    ({"opt": "basic", "mom": 0.9}, BadSetting, "no momentum"),
    ({"wd": -1.0}, BadSetting, "wd must be 0 or more, not -1"),
    ({"opt": "basic", "wd": 0.1}, BadSetting, "no weight decay"),
    ({"augment": -1.0}, BadSetting, "strength .*not -1"),
    ({"augment": 9.0}, BadSetting, "strength .*not 9"),
    ({"ema": 1.0}, BadSetting, "decay .*not 1"),
    ({"label_smoothing": 1.0}, BadSetting, "smoothing must .*not 1"),
    ({"log": "tensorbord"}, UnknownName, "Did you mean tensorboard"),
    ({"precision": "bf6"}, UnknownName, "Did you mean bf16"),
    pytest.param({"precision": "fp16"}, BadSetting, "GPU", marks=pytest.mark.skipif(
        torch.cuda.is_available(), reason="a GPU takes fp16")),
    ({"name": "a/b"}, BadSetting, "a/b"), ({"name": ".."}, BadSetting, r"\.\."),
    ({"source": "nowhere"}, DigitError, "nowhere"),
])
def test_mistakes_leave_nothing(quick, tmp_path, wrong, error, message):
    with pytest.raises(error, match=message):
        train_run(**{**quick, **wrong})
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_a_run_for_reading_is_calibrated_and_goes_into_one_safe_file(quick, digits):
    from digitfast import open_predictor, read_digit
    from digitfast.runs.export import export_run
    run = train_run(**{**quick, "arch": "digitnet"}, epochs=6, holdout=0.2, pen=0.1,
                    non_digits=0.2, augment=0.3)
    calibration = run.summary["calibration"]
    assert 0.1 <= calibration["temperature"] <= 10 and 0 < calibration["threshold"] < 1
    assert 0 <= calibration["expected_calibration_error"] < 0.5
    predictor = open_predictor(export_run("digitnet", "net.safetensors"))
    assert predictor.no_digit and predictor.threshold == calibration["threshold"]
    assert predictor.facts["run"] == "digitnet" and "path" not in json.dumps(predictor.facts)
    files = sorted((digits / "testing").glob("*/*.png"))
    read = [read_digit(f, predictor).digit for f in files]
    right = [digit is not None and digit.guess == file.parent.name
             for digit, file in zip(read, files, strict=True)]
    assert sum(right) > 60
    with pytest.raises(BadSetting, match="exists"):
        export_run("digitnet", "net.safetensors")


def test_non_digits_need_digits(quick):
    with pytest.raises(BadSetting, match="non_digits must .*not 2"):
        train_run(**quick, non_digits=2)
    with pytest.raises(BadSetting, match="ten digits"):
        train_run(**quick, non_digits=0.2, size=20)
    assert not list(Path("runs").glob("*"))


@pytest.mark.parametrize("error", [OSError("Directory not empty"), KeyboardInterrupt()],
                         ids=["OSError", "Ctrl-C"])
@pytest.mark.parametrize("at", ["run._remove_checkpoints", "results.Run"])
def test_nothing_that_was_finished_is_removed(quick, tmp_path, monkeypatch, error, at):
    "Once the summary is written, no error removes the run."
    def fails(*args):
        raise error
    monkeypatch.setattr(f"digitfast.runs.{at}", fails)
    with pytest.raises(type(error)):
        train_run(**quick)
    monkeypatch.undo()
    assert find_run(tmp_path / "runs/simple").summary["accuracy"] > 0


@pytest.mark.parametrize("module, name", [("os", "rmdir"), ("shutil", "rmtree")])
def test_checkpoints_that_cannot_be_removed_do_not_fail_the_run(quick, monkeypatch, module, name):
    module = import_module(module)
    remove = getattr(module, name)

    def full(path, *args, **kwargs):
        if str(path).endswith("checkpoints"):
            raise OSError(39, "Directory not empty", str(path))
        remove(path, *args, **kwargs)
    monkeypatch.setattr(module, name, full)
    assert train_run(**quick).summary["accuracy"] > 0


def test_a_run_can_replace_its_name(quick):
    run = train_run(**quick)
    assert find_run(run) is run
    with pytest.raises(BadSetting, match="is finished"):
        resume_run(run)


@pytest.mark.parametrize("change", [
    {"accuracy": None}, {"settings": []}, {"settings": {}}, {"seconds": {}}, {"data": None},
    {"accuracy_interval_95": [1]}, {"calibration": [1]}, {"validation_images": "120"}], ids=str)
def test_a_summary_with_other_kinds_of_values_is_damaged(quick, change):
    run = train_run(**quick)
    (run.path / "summary.json").write_text(json.dumps({**run.summary, **change}))
    assert list_runs() == []
    with pytest.raises(RunNotFound, match="summary.json is damaged"):
        find_run(run.path)


def test_a_summary_that_is_nested_too_deeply_or_a_folder_is_none(quick):
    run = train_run(**quick)
    (run.path / "summary.json").write_text("[" * 200_000)
    Path("runs/odd/summary.json").mkdir(parents=True)
    assert list_runs() == []


@pytest.mark.parametrize("name", ["steps.csv", "history.csv"])
def test_damaged_tables_are_named(quick, name):
    run = train_run(**quick)
    content = (run.path / name).read_bytes()
    (run.path / name).write_bytes(content[:-9] + b"\xff\n")
    with pytest.raises(BadData, match=f"{name} is damaged"):
        (run.steps if name == "steps.csv" else run.history)()
