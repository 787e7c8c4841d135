"""Networks of one's own, and callbacks and transforms of one's own for their training."""
import numpy as np
import pytest
import torch
from conftest import is_one_line
from fastai.callback.core import Callback
from fastai.data.transforms import Normalize
from fastai.torch_core import TensorImage
from fasttransform import Transform
from PIL import Image
from test_checkpoints import Stops, StopsAt
from torch import nn

from digitfast import (
    BadData,
    BadSetting,
    DigitError,
    digit_dls,
    digit_learner,
    open_predictor,
    resume_run,
    train_run,
    write_report,
)
from digitfast.report import gather
from digitfast.runs import checkpoints
from digitfast.runs.export import export_run
from digitfast.runs.folders import find_run, is_unfinished
from digitfast.runs.settings import read_settings

EPOCHS, BATCHES = 3, 9  # of the run below; batches of an epoch


class Net(nn.Module):
    "A network that digitfast has no name for."

    def __init__(self, hidden=16, classes=10):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first = nn.Linear(784, hidden)
            self.norm = nn.BatchNorm1d(hidden)
            self.last = nn.Linear(hidden, classes)

    def forward(self, x):
        return self.last(self.norm(self.first(x.flatten(1))).relu())


class Undecided(Net):
    "A network whose way depends on the values of the images, which an .onnx cannot hold."

    def forward(self, x):
        return super().forward(2 * x if x.sum().item() > 1e6 else x)


class Counts(Callback):
    "Counts the batches of the training."
    batches = 0

    def after_batch(self):
        self.batches += self.training


class Fainter(Transform):
    "Makes the ink of the training images fainter."
    split_idx = 0

    def encodes(self, x: TensorImage):
        return x / 4


@pytest.fixture(scope="module")
def dls(digits):
    return digit_dls(digits, bs=32, num_workers=0, seed=0, device="cpu")


@pytest.fixture(scope="module")
def settings(digits):
    return {"source": str(digits), "bs": 32, "lr": 0.02, "epochs": EPOCHS, "device": "cpu"}


@pytest.fixture(scope="module")
def counts():
    return Counts()


@pytest.fixture(scope="module")
def run(settings, counts, tmp_path_factory):
    "A run of a network of one's own. Not to be changed."
    runs = tmp_path_factory.mktemp("runs")
    return train_run(**settings, arch=Net(), cbs=counts, runs=str(runs))


@pytest.fixture
def images(digits):
    "Images of the test split, as a `Predictor` takes them."
    files = sorted((digits / "testing").glob("*/*.png"))
    return np.stack([np.asarray(Image.open(file)) for file in files])


def test_a_learner_of_a_network_trains(dls):
    network = Net()
    learn = digit_learner(dls, network)
    assert learn.model is network
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(4, 0.02)
    assert learn.validate()[1] > 0.6


def test_such_a_learner_takes_fastais_arguments(dls):
    learn = digit_learner(dls, Net(), lr=0.5, metrics=[])
    assert learn.lr == 0.5 and not list(learn.metrics)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_trying_a_network_out_leaves_it_as_it_was(dls, training):
    network = Net().train(training)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    digit_learner(dls, network)
    assert network.training == training
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())


@pytest.mark.parametrize("network, problem", [
    (Net(classes=7), r"Net gives \[2, 7\] for 2 images; it must give \[2, 10\], a logit for each"),
    (nn.Conv2d(1, 10, 3), r"Conv2d gives \[2, 10, 26, 26\] for 2 images; it must give \[2, 10\]"),
    (nn.Sequential(nn.Flatten(), nn.Linear(100, 10)),
     r"Sequential cannot take a batch of \[1, 28, 28\] images \(mat1 and mat2 shapes"),
    (nn.Conv2d(3, 10, 3), r"Conv2d cannot take a batch of \[1, 28, 28\] images \(.* 3 channels"),
    (nn.Flatten(), "Flatten cannot take a batch")],
    ids=["classes", "shape", "pixels", "channels", "no weights"])
def test_networks_that_do_not_fit(dls, network, problem):
    with pytest.raises(BadSetting, match=problem) as error:
        digit_learner(dls, network)
    assert "\n" not in str(error.value)


def test_a_run_with_a_network_that_does_not_fit_leaves_nothing(settings, tmp_path):
    with pytest.raises(BadSetting, match="Net gives"):
        train_run(**settings, arch=Net(classes=9), runs=str(tmp_path / "runs"))
    assert not list(tmp_path.iterdir())


def test_a_run_folder_has_the_network_twice_without_its_code(run):
    assert sorted(file.name for file in run.path.iterdir()) == [
        "history.csv", "learner.pkl", "model.onnx", "model.safetensors", "settings.ini",
        "steps.csv", "summary.json"]


def test_a_run_is_called_as_its_network(run):
    assert run.path.name == "Net"
    assert read_settings(path=run.path / "settings.ini")["arch"] == "Net"
    assert find_run(run.path).summary == run.summary


def test_a_run_has_learnt(run, images):
    assert run.summary["accuracy"] > 0.6
    assert run.summary["parameters"] == sum(p.numel() for p in Net().parameters())


def test_a_run_answers_as_the_trained_network_does(run, images):
    learn = run.learner()
    with learn.no_bar():
        expected = learn.get_preds(dl=learn.dls.test_dl(list(images)))[0]
    assert np.allclose(run.predictor().chances(images)[:, :-1], expected, atol=1e-5)


def test_a_run_answers_with_the_accuracy_of_its_summary(run, images):
    right = run.predictor().chances(images).argmax(1) == np.arange(120) // 12
    assert right.mean() == pytest.approx(run.summary["accuracy"])


@pytest.mark.parametrize("form", ["run", "folder", "text", "file"])
def test_it_opens_without_the_code_of_the_network(run, images, form):
    named = {"run": run, "folder": run.path, "text": str(run.path), "file": run.path / "model.onnx"}
    expected = open_predictor(run.path, network=Net()).chances(images)
    assert np.allclose(open_predictor(named[form]).chances(images), expected, atol=1e-5)


@pytest.mark.parametrize("file", ["", "model.safetensors"], ids=["folder", "file"])
def test_a_fresh_network_gets_the_weights(run, images, file):
    network = Net()
    found = open_predictor(run.path / file, network=network)
    assert found.network.model is network
    expected = open_predictor(run.path / "model.onnx").chances(images)
    assert np.allclose(found.chances(images), expected, atol=1e-5)


def test_the_weights_alone_are_no_network(run):
    words = "unknown architecture .Net.*of your own, open the .onnx .* or: open_predictor.*network="
    with pytest.raises(BadData, match=words):
        open_predictor(run.path / "model.safetensors")


@pytest.mark.parametrize("network, problem", [
    (Net(hidden=20), r" is float32 \[.*16.*\] instead of float32 \[.*20"),
    (nn.Linear(784, 10), "model.safetensors lacks the weights bias, weight"),
    (Net().double(), "is float32 .* instead of float64")], ids=["size", "names", "type"])
def test_the_weights_do_not_fit_another_network(run, network, problem):
    with pytest.raises(BadData, match=problem) as error:
        open_predictor(run.path, network=network)
    assert "\n" not in str(error.value)


def test_a_report(run, tmp_path, monkeypatch):
    monkeypatch.setattr(gather, "cross_validated_chances", lambda *dls: [
        np.full((dl.n, dl.c), 1 / dl.c) for dl in dls])  # label errors are looked for elsewhere
    page = write_report(run, tmp_path / "report.html").read_text()
    assert f'<p class="score">{100 * run.summary["accuracy"]:.2f}<small>%' in page


def test_an_exported_onnx_answers_as_the_run_does(run, images, tmp_path):
    exported = open_predictor(export_run(run, tmp_path / "net.onnx"))
    expected = open_predictor(run.path / "model.onnx").chances(images)
    assert np.allclose(exported.chances(images), expected, atol=1e-5)


def test_exported_weights_are_those_of_the_run(run, images, tmp_path):
    exported = open_predictor(export_run(run, tmp_path / "net.safetensors"), network=Net())
    expected = open_predictor(run.path, network=Net()).chances(images)
    assert np.array_equal(exported.chances(images), expected)


def test_commands_take_the_run(run_cli, run, digits, images):
    code, out, err = run_cli("predict", run.path, digits / "testing/0/37.png")
    answer = open_predictor(run.path, network=Net()).chances(images[7:8]).max()
    assert (code, err) == (0, "") and f"{answer:.2%}" in out


def test_commands_that_need_the_code_say_so(run_cli, run, digits):
    code, out, err = run_cli("predict", run.path / "model.safetensors", digits / "testing/0")
    assert (code, out) == (1, "") and is_one_line(err)
    assert "If it is one of your own, open the .onnx" in err


def test_a_network_that_an_onnx_cannot_hold_is_kept_as_weights(settings, images, tmp_path):
    with pytest.warns(UserWarning, match=r"not its code; open it with open_predictor\('.*network="):
        run = train_run(**settings, arch=Undecided(), runs=str(tmp_path))
    assert not (run.path / "model.onnx").exists()
    answers = open_predictor(run.path, network=Undecided()).chances(images).argmax(1)
    assert (answers == np.arange(120) // 12).mean() == pytest.approx(run.summary["accuracy"])


def test_callbacks_are_called(run, counts):
    assert counts.batches == EPOCHS * BATCHES


def test_callbacks_are_called_for_a_named_network_too(settings, tmp_path):
    one, other = Counts(), Counts()
    train_run(**{**settings, "epochs": 1}, arch="simple", cbs=[one, other], runs=str(tmp_path))
    assert one.batches == other.batches == BATCHES


def test_callbacks_are_no_part_of_the_run(run):
    assert Counts.__name__ not in {type(cb).__name__ for cb in run.learner().cbs}


@pytest.mark.parametrize("arch", ["simple", "own"])
def test_a_transform_that_a_file_cannot_hold_is_refused(settings, tmp_path, arch):
    with pytest.raises(BadSetting, match="a run cannot hold the learner's transforms"):
        train_run(**settings, arch=Net() if arch == "own" else arch, runs=str(tmp_path / "runs"),
                  batch_tfms=Normalize.from_stats([0.1], [0.3]))
    assert not list(tmp_path.iterdir())


def test_a_transform_of_training_images_changes_the_training(settings, run, tmp_path):
    fainter = train_run(**settings, arch=Net(), batch_tfms=Fainter(), runs=str(tmp_path))
    assert fainter.steps()[0][2] != run.steps()[0][2]


def test_a_transform_of_training_images_is_no_part_of_the_answer(settings, images, tmp_path):
    fainter = train_run(**settings, arch="simple", batch_tfms=[Fainter()], runs=str(tmp_path))
    right = fainter.predictor().chances(images).argmax(1) == np.arange(120) // 12
    assert right.mean() == pytest.approx(fainter.summary["accuracy"])


@pytest.fixture
def stopped(settings, tmp_path, monkeypatch):
    "The folder of a run that was stopped in its second epoch."
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    monkeypatch.setattr(checkpoints, "SHARE", 1e9)
    with pytest.raises(Stops):
        train_run(**settings, arch=Net(), cbs=StopsAt(BATCHES + 5), runs=str(tmp_path))
    return tmp_path / "Net"


def weights(run):
    return open_predictor(run.path, network=Net()).network.model.state_dict()


def test_a_stopped_run_resumes_to_the_same_weights(run, stopped):
    assert is_unfinished(stopped)
    counts = Counts()
    resumed = resume_run(stopped, arch=Net(), cbs=counts)
    expected = weights(run)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(resumed).items())
    assert 0 < counts.batches < EPOCHS * BATCHES
    assert (resumed.path / "model.onnx").is_file()


def test_a_stopped_run_does_not_resume_without_its_network(stopped):
    with pytest.raises(DigitError, match="Net") as error:
        resume_run(stopped)
    assert "\n" not in str(error.value) and is_unfinished(stopped)
