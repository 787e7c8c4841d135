"""Two processes on CPUs train as one does: `torchrun` runs this file, with a task from `WORK`.

Each launch costs the imports of two processes, so there are few, and many tests check their output.
"""
import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from fastai.callback.core import Callback
from fastai.distributed import DistributedDL
from fastai.torch_core import TensorImageBW, set_seed

from digitfast import BadData, BadSetting, digit_dls, evaluate_learner, find_run, train_run
from digitfast.runs import checkpoints
from digitfast.runs import run as runs_module
from digitfast.training.distributed import _own_batch_norm
from digitfast.training.learners import digit_learner, simple_learner
from digitfast.training.processes import first_process_first, joined, on_first_process, process_rank
from digitfast.training.train import train_learner

# Everything that is random or has a state; two processes cannot share 33 held-out images evenly.
SETTINGS = {"arch": "digitnet", "bs": 32, "epochs": 3, "lr": 0.01, "precision": "fp32", "ema": 0.9,
            "augment": 0.5, "pen": 0.2, "non_digits": 0.2, "holdout": 0.11}
#: Nothing random, no batch norm.
PLAIN = {"arch": "simple", "bs": 32, "epochs": 2, "lr": 0.01, "precision": "fp32"}
LEARNT = {"arch": "digitnet", "bs": 30, "epochs": 10, "precision": "fp32"}
MISTAKES = (["fit", "--lr", "-1"], ["fit", "--bs", "33"], ["fit", "--source", "nowhere"],
            ["fit", "--resume", "nothing"], ["evaluate", "--trust"], ["fit", "--no-such-option"])


class Ends(Callback):
    "Call `by` after batch `n` of the training: it raises an exception or ends the process."
    order = checkpoints.Checkpoints.order + 1

    def __init__(self, n, by):
        super().__init__()
        self.left = n
        self.by = by

    def after_batch(self):
        self.left -= 1
        if self.left == 0:
            self.by()


class Stops(Exception):
    "Stops a training in these tests."


def stop(): raise Stops("stopped")


def with_callback(cb):
    "Return `train_learner` with one more callback."
    return lambda *args, cbs: train_learner(*args, cbs=[*cbs, cb])


# What the processes do ----------------------------------------------------------------------------

def trains(digits, folder):
    "Do several trainings in one launch; write to files what only one process can see."
    for name, settings in (("whole", SETTINGS), ("plain", PLAIN), ("learnt", LEARNT)):
        run = train_run(digits, **settings, name=name, runs=folder)
        assert run == find_run(name, folder) or run.sha256  # every process is given the run
    checkpoints.EVERY, checkpoints.SHARE = 0.0, 1e9
    runs_module.train_learner = with_callback(Ends(11, stop))
    with pytest.raises(Stops):
        train_run(digits, **SETTINGS, name="stopped", runs=folder)
    runs_module.train_learner = train_learner
    runs_module.resume_run("stopped", folder)
    left = {"drawn": [], "idxs": []}
    with joined():
        set_seed(7)
        learn = digit_learner(digit_dls(digits, bs=32), "digitnet")
        train_learner(learn, 2, 0.01, precision="fp32", cbs=Watches(left))
        left["weights"] = learn.model.state_dict()
        left["metrics"] = list(learn.recorder.values[-1])
        left["n"] = evaluate_learner(learn).n
        left["once"] = on_first_process(lambda: f"by {process_rank()}")()
        with pytest.raises(BadSetting, match="only on 1"):
            first_process_first(fails_on)(1)
    with pytest.raises(BadData, match="different images"):
        settings = {**PLAIN, "holdout": 0.1 + 0.1 * process_rank()}
        train_run(digits, **settings, name="apart", runs=folder)
    torch.save(left, f"{folder}/left-{process_rank()}.pt")


class Watches(Callback):
    "Note what a process sees: the images of its shares, and the first number that it draws."

    def __init__(self, left):
        super().__init__()
        self.left = left

    def before_train(self):
        train = self.dls.train

        def get_idxs():
            idxs = type(train).get_idxs(train)
            self.left["idxs"].append(idxs)
            return idxs
        train.part.get_idxs = get_idxs
        self.left["drawn"].append(torch.rand(1).item())


def fails_on(rank):
    if process_rank() == rank:
        raise BadSetting(f"only on {rank}")


def errs():
    from digitfast.cli.app import main
    for args in MISTAKES:
        sys.argv = ["digitfast", *args]
        with pytest.raises(SystemExit) as e:
            main()
        assert e.value.code in (1, 2)


def is_killed(digits, folder):
    "Kill the second process in the second epoch, as the system does when memory runs out."
    from digitfast.cli.app import main
    checkpoints.EVERY, checkpoints.SHARE = 0.0, 1e9
    if process_rank() == 1:
        ends = Ends(11, lambda: os.kill(os.getpid(), signal.SIGKILL))
        runs_module.train_learner = with_callback(ends)
    options = [f"--{key.replace('_', '-')}={value}" for key, value in SETTINGS.items()]
    sys.argv = ["digitfast", "fit", "--source", digits, "--name", "killed", "--runs", folder,
                *options]
    main()


WORK = {"trains": trains, "errs": errs, "is_killed": is_killed}
if __name__ == "__main__":
    WORK[sys.argv[1]](*sys.argv[2:])
    sys.exit()


# The tests ----------------------------------------------------------------------------------------

TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
#: Without --multi_gpu it starts only one process on a CPU.
ACCELERATE = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]


def launch(*args, by=TORCHRUN, cwd=None):
    "Start two processes, which must not hang."
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-m", *by, *args], capture_output=True, text=True,
                          timeout=240, env=env, cwd=cwd)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def trained_by_two(digits, folder):
    "Return stdout, and what each process left."
    done = launch(__file__, "trains", str(digits), str(folder))
    assert done.returncode == 0, done.stderr
    return done.stdout, [torch.load(folder / f"left-{rank}.pt") for rank in range(2)]


def weights(run):
    return run.predictor().network.model.state_dict()


def test_shares_are_disjoint_and_make_up_the_batches_of_one_process(digits, trained_by_two):
    set_seed(7)
    alone = digit_learner(digit_dls(digits, bs=32), "digitnet").dls.train
    shares = [left["idxs"] for left in trained_by_two[1]]
    assert len(shares[0]) == len(shares[1]) == 2
    for first, second in zip(*shares, strict=True):
        torch.rand(1)  # as `Watches` does
        pairs = zip(first.split(16), second.split(16), strict=True)
        together = torch.cat([torch.cat(pair) for pair in pairs])
        # there are 300 images, and the last batch is not full
        assert together.tolist() == alone.get_idxs()[:288].tolist()
        assert len(set(together.tolist())) == 288


def test_weights_and_statistics_are_equal_and_random_changes_are_not(trained_by_two):
    first, second = trained_by_two[1]
    assert first["weights"].keys() == second["weights"].keys()
    assert "1.running_mean" in first["weights"]
    for name, tensor in first["weights"].items():
        assert torch.equal(tensor, second["weights"][name]), name
    assert len({*first["drawn"], *second["drawn"]}) == 4
    assert first["once"] == second["once"] == "by 0"


def test_metrics_are_over_each_validation_image_once(digits, folder, trained_by_two):
    first, second = trained_by_two[1]
    assert first["metrics"][1:] == second["metrics"][1:]
    assert first["n"] == second["n"] == 120
    for name, holdout in (("whole", 0.11), ("plain", 0.0)):
        run = find_run(name, folder)
        learn = simple_learner(digit_dls(digits, holdout=holdout, bs=32))
        learn.model = run.predictor().network.model
        loss, accuracy = learn.validate()
        assert run.summary["validation_images"] == (33 if holdout else 120)
        assert run.summary["accuracy"] == pytest.approx(accuracy, abs=1e-7)
        assert run.summary["validation_loss"] == pytest.approx(loss, rel=1e-5)
        assert float(run.history()[-1]["valid_loss"]) == run.summary["validation_loss"]


def test_two_processes_train_as_one_does(digits, folder, trained_by_two, tmp_path, capsys):
    alone = weights(train_run(str(digits), **PLAIN, runs=str(tmp_path)))
    for name, tensor in weights(find_run("plain", folder)).items():
        torch.testing.assert_close(tensor, alone[name], atol=1e-4, rtol=1e-3)
    one = train_run(str(digits), **LEARNT, runs=str(tmp_path))
    two = find_run("learnt", folder)
    assert one.summary["accuracy"] > 0.9
    assert abs(one.summary["accuracy"] - two.summary["accuracy"]) < 0.05
    assert (one.summary["processes"], two.summary["processes"]) == (1, 2)
    # as many steps, at the same rates
    assert [step[:2] for step in one.steps()] == [step[:2] for step in two.steps()]


def test_a_training_that_was_stopped_goes_on_to_the_same_weights(folder, trained_by_two):
    whole, stopped = (weights(find_run(name, folder)) for name in ("whole", "stopped"))
    for name, tensor in whole.items():
        assert torch.equal(tensor, stopped[name]), name
    assert not (folder / "stopped/checkpoints").exists()


def test_fastais_own_sharing_reads_from_memory_too(digits):
    "`distrib_ctx` alone, as users of fastai write it."
    dl = digit_dls(digits, bs=32).valid
    seen = []
    for rank in range(2):
        shared = DistributedDL(dl, rank, 2)
        shared._broadcast = lambda t, rank: t  # there is no other process to send it to
        seen += [images for images, labels in shared]
    assert all(type(images) is TensorImageBW for images in seen)
    assert all(images.dtype == torch.float32 for images in seen)
    assert torch.equal(torch.cat(seen).as_subclass(torch.Tensor), dl.pixels.unsqueeze(1) / 255)


def test_batch_norm_is_the_networks_own_again_after_a_training_on_gpus():
    own = torch.nn.BatchNorm2d(2)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Sequential(own))
    learn = SimpleNamespace(model=network)
    with _own_batch_norm(learn):
        learn.model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network).eval()
        assert isinstance(network[1][0], torch.nn.SyncBatchNorm)
        with torch.no_grad():
            network[1][0].running_mean += 1
            network[1][0].weight.data = torch.tensor([2.0, 3])  # as `WeightAverage` does
    assert network[1][0] is own and not own.training
    assert own.running_mean.tolist() == [1, 1] and own.weight.tolist() == [2, 3]


def test_only_the_first_process_prints(trained_by_two):
    lines = trained_by_two[0].splitlines()
    tables = [i for i, line in enumerate(lines) if line.split()[:1] == ["Epoch"]]
    assert len(tables) == 6  # five runs and a learner
    epochs = [int(line.split()[0]) for line in lines if re.match(r" *\d+  ", line)]
    # the fourth run stops after its epoch 0, and is resumed
    assert epochs == [0, 1, 2, 0, 1, *range(10), 0, 1, 2, 0, 1]
    assert lines.count("resuming at epoch 1, batch 2") == 1


def test_a_mistake_is_reported_once(tmp_path):
    done = launch(__file__, "errs", cwd=tmp_path)
    lines = done.stderr.splitlines()
    errors = [line for line in lines if line.startswith("digitfast: ")]
    assert done.returncode == 0 and done.stdout == "" and len(errors) == len(MISTAKES), done.stderr
    assert "not -1.0" in errors[0] and "try bs=32 or 34" in errors[1]
    assert "'nowhere' does not exist" in errors[2]
    assert "no unfinished run named 'nothing'" in errors[3]
    assert "run it without a launcher: digitfast evaluate" in errors[4]
    assert "No such option" in errors[5] and not list(tmp_path.rglob("*"))


def test_one_that_is_killed_ends_all_and_the_run_goes_on(digits, folder, trained_by_two, run_cli):
    done = launch(__file__, "is_killed", str(digits), str(folder))
    command = f"-m digitfast fit --resume {folder / 'killed'}"
    errors = [line for line in done.stderr.splitlines() if line.startswith("digitfast: ")]
    assert done.returncode != 0 and len(errors) == 1, done.stderr
    assert "another process of the training has ended" in errors[0]
    assert errors[0].endswith(f"resume with: torchrun --nproc_per_node 2 {command}")
    assert "[rank0]: Traceback" not in done.stderr
    code, out, err = run_cli("fit", "--resume", folder / "killed")
    assert code == 1 and err.count("\n") == 1
    assert "began with 2 processes, and there are 1 now" in err
    done = launch(*command.split(), by=ACCELERATE)
    assert done.returncode == 0 and "resuming at epoch 1, batch 2" in done.stdout, done.stderr
    for name, tensor in weights(find_run("whole", folder)).items():
        assert torch.equal(tensor, weights(find_run("killed", folder))[name]), name
