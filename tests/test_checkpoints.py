"A training stopped anywhere resumes to the same weights; damaged checkpoints are noticed."
import errno
import multiprocessing
import os
import pickle
import random
import resource
import shutil
import signal
import time
from importlib import import_module

import pytest
import torch
from fastai.callback.core import Callback

from digitfast import BadSetting, RunNotFound, find_run, list_runs, resume_run, train_run
from digitfast.errors import BadData
from digitfast.files import read_sealed, write_sealed
from digitfast.runs import checkpoints
from digitfast.runs import run as runs
from digitfast.runs.checkpoints import BEST
from digitfast.training import train as training

KILLS = int(os.environ.get("DIGITFAST_KILLS", 20))  # in the test with random moments
# Everything that has state: random image changes, average of the weights, non-digits, schedule.
SETTINGS = {"arch": "digitnet", "bs": 32, "epochs": 3, "lr": 0.01, "precision": "fp32",
            "ema": 0.9, "augment": 0.5, "pen": 0.2, "non_digits": 0.2, "holdout": 0.2,
            "name": "run"}
BATCHES = 7  # per epoch


@pytest.fixture(autouse=True)
def a_checkpoint_after_every_batch(monkeypatch):
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    monkeypatch.setattr(checkpoints, "SHARE", 1e9)


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory):
    "A run that was never stopped, with no checkpoints within its epochs."
    folder = tmp_path_factory.mktemp("whole")
    return train_run(str(digits), **SETTINGS, runs=str(folder))


def outcome(run):
    "Return what equal runs have in common: weights, history.csv without times, results."
    lines = [list(row.values())[:-1] for row in run.history()]
    keys = ("accuracy", "validation_loss", "training_loss", "calibration")
    kept = {key: run.summary[key] for key in keys}
    state = run.predictor().network.model.state_dict()
    return {name: t.tolist() for name, t in state.items()}, lines, kept


class Stops(Exception):
    "Raised to stop a training in these tests."


class StopsAt(Callback):
    "Stop after batch `n`, of training or validation."
    order = checkpoints.Checkpoints.order + 1

    def __init__(self, n):
        super().__init__()
        self.left = n

    def after_batch(self):
        self.left -= 1
        if self.left == 0:
            raise Stops("stopped")


def stopped(monkeypatch, digits, folder, n, **settings):
    "Return the folder of a run that stopped after batch `n`."
    with monkeypatch.context() as patch:
        patch.setattr(runs, "train_learner", with_callback(StopsAt(n)))
        with pytest.raises(Stops) as e:
            train_run(str(digits), **{**SETTINGS, **settings}, runs=str(folder))
    assert e.value.__notes__ == [f"resume with: digitfast fit --resume {folder / 'run'}"]
    return folder / "run"


def with_callback(cb):
    "Return `train_learner` with one more callback."
    def train_learner(*args, cbs):
        return training.train_learner(*args, cbs=[*cbs, cb])
    return train_learner


# In an epoch, after its last batch, in and after validation, in the next epoch, at the very end.
@pytest.mark.parametrize("n", [
    1, 4, BATCHES, BATCHES + 1, BATCHES + 2, BATCHES + 5, 3 * BATCHES + 3])
def test_resumes_to_the_same_weights(whole, digits, tmp_path, monkeypatch, capsys, n):
    folder = stopped(monkeypatch, digits, tmp_path, n)
    assert list_runs(tmp_path) == []
    message = "run is not finished.*resume with: digitfast fit --resume"
    with pytest.raises(RunNotFound, match=message):
        find_run("run", tmp_path)
    capsys.readouterr()
    run = resume_run("run", tmp_path)
    epoch, batch = divmod(n - 1, BATCHES + 1)  # there is one batch of validation
    place = f"epoch {epoch}, batch {min(batch + 1, BATCHES)}"
    assert f"resuming at {place}\n" in capsys.readouterr().out
    assert outcome(run) == outcome(whole)
    assert run.summary["seconds"]["total"] > run.summary["seconds"]["training"]  # of both processes
    assert not (folder / "checkpoints").exists()
    with pytest.raises(BadSetting, match="is finished"):
        resume_run(folder)


@pytest.mark.parametrize("settings", [
    {"arch": "simple", "opt": "ranger"},
    {"arch": "simple", "opt": "basic", "schedule": "constant"},
    {"arch": "article", "opt": "sgd", "mom": 0.8},
    {"arch": "squeezenet1_1"},
    {"arch": "simple", "opt": "lamb"}])
def test_other_networks_and_optimisers(digits, tmp_path, monkeypatch, settings):
    settings = {"pen": 0.0, "non_digits": 0.0, "augment": 0.0, "epochs": 2, **settings}
    expected = train_run(str(digits), **{**SETTINGS, **settings}, runs=str(tmp_path / "whole"))
    stopped(monkeypatch, digits, tmp_path / "stopped", 5, **settings)
    assert outcome(resume_run("run", tmp_path / "stopped")) == outcome(expected)


# In an epoch, in validation, after it.
@pytest.mark.parametrize("n", [4, BATCHES + 1, BATCHES + 2])
def test_images_from_files_keep_their_order(digits, tmp_path, monkeypatch, n):
    settings = {"non_digits": 0.0, "epochs": 2}
    monkeypatch.setattr("digitfast.data.loaders.RESIDENT_BYTES", 0)
    expected = train_run(str(digits), **{**SETTINGS, **settings}, runs=str(tmp_path / "whole"))
    stopped(monkeypatch, digits, tmp_path / "stopped", n, **settings)
    assert outcome(resume_run("run", tmp_path / "stopped")) == outcome(expected)


def test_the_last_two_and_the_best_are_kept(digits, tmp_path, monkeypatch):
    folder = stopped(monkeypatch, digits, tmp_path, 2 * BATCHES + 4) / "checkpoints"
    assert sorted(f.name for f in folder.glob("*.safetensors")) == [
        "000002-000001.safetensors", "000002-000002.safetensors", BEST]
    rows = find_history(folder.parent)
    assert read_sealed(folder / BEST)[1]["state"]["dict"]["epoch"] == 1 + rows.index(min(rows))


def find_history(folder):
    "Return the validation losses in history.csv."
    lines = (folder / "history.csv").read_text().splitlines()[1:]
    return [float(line.split(",")[2]) for line in lines]


def test_damaged_checkpoints_are_reported_and_the_previous_one_is_used(
        whole, digits, tmp_path, monkeypatch):
    folder = stopped(monkeypatch, digits, tmp_path, BATCHES + 6) / "checkpoints"
    before, last = checkpoints._files(folder)
    last.write_bytes(last.read_bytes()[:-7])
    with pytest.warns(UserWarning, match=f"{last} is damaged.*the previous one is used"):
        assert checkpoints._last_good(folder)["batch"] == int(before.stem[-6:])
    before.write_bytes(b"")
    with pytest.warns(UserWarning, match=f"{before} is not a file that digitfast sealed"):
        state = checkpoints._last_good(folder)
    assert (state["epoch"], state["batch"]) == (1, 0)  # the best one
    (folder / BEST).write_bytes(pickle.dumps(Payload(tmp_path / "code has run")))
    with pytest.warns(UserWarning, match="best.safetensors .* starts again"):
        run = resume_run("run", tmp_path)
    assert outcome(run) == outcome(whole) and not (tmp_path / "code has run").exists()


class Payload:
    "A pickle that runs a command when it is opened."

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


def test_no_change_and_no_cut_is_accepted(digits, tmp_path, monkeypatch):
    file = checkpoints._files(stopped(monkeypatch, digits, tmp_path, 3) / "checkpoints")[-1]
    content, changed, chance = file.read_bytes(), tmp_path / "changed", random.Random(0)
    for percent in range(100):
        changed.write_bytes(content[:len(content) * percent // 100])
        with pytest.raises(BadData):
            read_sealed(changed)
    for _ in range(200):
        at, bit = chance.randrange(len(content)), chance.randrange(8)
        changed.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1:])
        with pytest.raises(BadData):
            read_sealed(changed)


@pytest.mark.parametrize("facts", [
    {},
    {"format": checkpoints.FORMAT},
    {"format": checkpoints.FORMAT, "facts": {}, "state": {"dict": {"opt": {"tensor": "9"}}}}])
def test_sealed_files_that_are_no_checkpoints(tmp_path, facts):
    write_sealed(tmp_path / "000001-000000.safetensors", {"0": torch.ones(1)}, facts)
    message = "000001-000000.safetensors (has the format|is not a digitfast checkpoint)"
    with pytest.warns(UserWarning, match=message):
        assert checkpoints._last_good(tmp_path) is None


def test_a_run_resumes_only_as_it_began(digits, copy_of_digits, tmp_path, monkeypatch):
    folder = stopped(monkeypatch, copy_of_digits, tmp_path, 3)
    settings = folder / "settings.ini"
    settings.write_text(settings.read_text().replace("epochs = 3", "epochs = 5"))
    message = "epochs was 3 when the training in .* began, and is 5 now"
    with pytest.raises(BadSetting, match=message):
        resume_run("run", tmp_path)
    settings.write_text(settings.read_text().replace("epochs = 5", "epochs = 3"))
    shutil.copyfile(copy_of_digits / "training/1/0.png", copy_of_digits / "training/0/0.png")
    with pytest.raises(BadSetting, match="the checksum of the data was"):
        resume_run("run", tmp_path)
    assert checkpoints._files(folder / "checkpoints")


def test_a_folder_that_has_moved_can_be_resumed(whole, digits, tmp_path, monkeypatch):
    folder = stopped(monkeypatch, digits, tmp_path, 5)
    run = resume_run(folder.rename(tmp_path / "other name"))
    assert outcome(run) == outcome(whole) and run.summary["run"] == "other name"


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(whole, digits, tmp_path):
    process = start(limited, digits, tmp_path)
    process.join()
    assert process.exitcode == 0
    folder = tmp_path / "run/checkpoints"
    assert [f.name for f in folder.glob("*.safetensors")] == ["000000-000001.safetensors"]
    assert not list(folder.glob(".*.partial"))
    assert outcome(resume_run("run", tmp_path)) == outcome(whole)


def limited(digits, folder):
    "Train; after the first checkpoint, files can have no more than a tenth of its size."
    write = checkpoints.Checkpoints.write

    def write_once(self, *args):
        write(self, *args)
        limit = next(self.folder.glob("*.safetensors")).stat().st_size // 10
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    checkpoints.Checkpoints.write = write_once
    with pytest.raises(OSError) as e:
        train(digits, folder)
    assert e.value.errno == errno.EFBIG and "no checkpoint could be written" in str(e.value)
    assert "resume with: digitfast fit --resume" in e.value.__notes__[-1]


def test_only_one_process_trains_a_run(digits, tmp_path):
    process = start(train, digits, tmp_path, 999)
    try:
        wait_for(lambda: list(tmp_path.glob("run/checkpoints/*.safetensors")))
        with pytest.raises(BadSetting, match="run is being trained by another process"):
            resume_run("run", tmp_path)
    finally:
        process.kill()
        process.join()
    with pytest.raises(BadSetting, match="epochs was 999"):  # nobody trains it now
        settings = tmp_path / "run/settings.ini"
        settings.write_text(settings.read_text().replace("epochs = 999", "epochs = 3"))
        resume_run("run", tmp_path)


@pytest.fixture
def usual_ctrl_c():
    "Install Python's own handler, which background jobs lack."
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    after = signal.signal(signal.SIGINT, before)
    assert after is signal.default_int_handler


def test_ctrl_c_asks_for_a_last_checkpoint(whole, digits, tmp_path, monkeypatch, usual_ctrl_c):
    monkeypatch.setattr(checkpoints, "EVERY", 1e9)  # so none are due within an epoch

    class PressesCtrlC(StopsAt):
        def after_pred(self):
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(signal.SIGINT)

        def after_batch(self): pass

    for n, place in ((4, "000000-000004"), (BATCHES + 1, "000000-000007")):
        with monkeypatch.context() as patch:
            patch.setattr(runs, "train_learner", with_callback(PressesCtrlC(n)))
            with pytest.raises(KeyboardInterrupt) as e:
                train_run(str(digits), **{**SETTINGS, "name": f"run{n}"}, runs=str(tmp_path))
        assert f"--resume {tmp_path}/run{n}" in e.value.__notes__[0]
        assert [f.stem for f in checkpoints._files(tmp_path / f"run{n}/checkpoints")] == [place]
        assert outcome(resume_run(f"run{n}", tmp_path)) == outcome(whole)


# SIGKILL, as the system sends it when memory runs out: at the n-th call of the named function.
MOMENTS = {
    "in a step": ("digitfast.training.optimizers", "adamw", 10),
    "in a forward pass": ("digitfast.training.callbacks", "with_no_digit", 12),
    "before a checkpoint is on the disk": ("os", "fsync", 9),
    "before a checkpoint has its name": ("os", "replace", 9),
    "before a line of the history": ("csv", "writer", 2),
    "when the best one gets its name": ("os", "link", 1),
    "in the calibration": ("digitfast.runs.results", "_calibrate", 1),
    "in the export": ("torch", "save", 1),
    "before the summary": ("digitfast.runs.results.json", "dumps", 1),
    "when all is done": ("digitfast.runs.run.shutil", "rmtree", 1)}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_in_every_phase(whole, digits, tmp_path, moment):
    process = start(train, digits, tmp_path, 3, MOMENTS[moment])
    process.join()
    assert process.exitcode == -signal.SIGKILL
    if moment == "when all is done":
        assert outcome(find_run("run", tmp_path)) == outcome(whole)
    else:
        assert outcome(resume_run("run", tmp_path)) == outcome(whole)


def test_killed_at_random_moments(whole, digits, tmp_path):
    chance = random.Random(7)
    kills = 0
    place = 0
    process = start(train, digits, tmp_path / "timed")
    begin = time.monotonic()
    process.join()
    duration = time.monotonic() - begin
    while kills < KILLS:
        place += 1
        finished = False
        folder = tmp_path / str(place)
        while not finished:
            process = start(train_or_resume, digits, folder)
            process.join(chance.uniform(0, duration) if kills < KILLS else None)
            if process.is_alive():
                process.kill()
                process.join()
            kills += process.exitcode == -signal.SIGKILL
            assert process.exitcode in (0, -signal.SIGKILL)
            finished = (folder / "run/summary.json").exists()
        assert outcome(find_run("run", folder)) == outcome(whole)
    print(f"{kills} kills in {place} runs")


def start(target, *args):
    "Start a process that has already imported what a training needs."
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["digitfast.runs.run", "digitfast.runs.checkpoints"])
    process = context.Process(target=target, args=args)
    process.start()
    return process


def train(digits, folder, epochs=3, moment=None):
    "Train with a checkpoint after every batch, and kill this process at `moment`."
    checkpoints.EVERY = 0.0
    checkpoints.SHARE = 1e9
    if moment:
        kill_at(*moment)
    return train_run(str(digits), **{**SETTINGS, "epochs": epochs}, runs=str(folder))


def train_or_resume(digits, folder):
    checkpoints.EVERY = 0.0
    checkpoints.SHARE = 1e9
    if (folder / "run/settings.ini").exists():
        resume_run("run", folder)
    else:  # nothing to resume with: it was killed before
        shutil.rmtree(folder, ignore_errors=True)
        train(digits, folder)


def kill_at(module, name, n):
    left = [n]
    parts = module.split(".")
    owner = import_module(".".join(parts[:3]) if parts[0] == "digitfast" else module)
    for part in parts[3:]:
        owner = getattr(owner, part)
    usual = getattr(owner, name)

    def dies(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return usual(*args, **kwargs)

    setattr(owner, name, dies)


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_checkpoints_take_a_small_part_of_the_time(digits, tmp_path, monkeypatch):
    "If epochs are too short, some get no checkpoint, but the last one always does."
    monkeypatch.setattr(checkpoints, "SHARE", 1e-9)
    written = []
    write = checkpoints.Checkpoints.write
    monkeypatch.setattr(checkpoints.Checkpoints, "write",
                        lambda self, *place: (written.append(place), write(self, *place)))
    train_run(str(digits), **{**SETTINGS, "epochs": 5}, runs=str(tmp_path))
    assert written[-1] == (5, 0) and len(written) < 5
