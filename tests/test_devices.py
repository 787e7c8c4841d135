"""Where networks run. A device that is missing everywhere is named before anything is read."""
import numpy as np
import pytest
import torch
from conftest import is_one_line
from fastai.torch_core import default_device

from digitfast import Predictor, digit_dls, train_run
from digitfast.data.devices import named_device
from digitfast.errors import BadSetting
from digitfast.inference.onnx_network import OnnxNetwork
from digitfast.inference.torch_network import TorchNetwork
from digitfast.runs.settings import read_settings

MISSING = "cuda:99"


def is_about_the_device(err: str) -> bool:
    "Return whether `err` is one line that names the missing device and those that are there."
    return is_one_line(err) and f"device='{MISSING}' is not on this machine; it has cpu" in err


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")], ids=["name", "device"])
def test_a_device_that_is_there(device):
    assert named_device(device) == torch.device("cpu")


def test_without_a_name_it_is_the_default_of_fastai():
    assert named_device(None) == default_device()


@pytest.mark.parametrize("device", [
    MISSING, torch.device(MISSING), "gpu", "CPU", "", "cuda:one", "cuda:-1"], ids=str)
def test_a_device_that_is_not_there(device):
    with pytest.raises(BadSetting) as error:
        named_device(device)
    assert str(error.value).startswith(f"device={str(device)!r} is not on this machine; it has cpu")
    assert "\n" not in str(error.value)


def test_gpus_that_are_there_are_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(BadSetting, match="it has cpu, cuda:0, cuda:1, mps$"):
        named_device(MISSING)


@pytest.mark.parametrize("command", [
    ["fit", "--source", "absent"],
    ["lr-find", "--source", "absent"],
    ["evaluate", "--source", "absent"], ["evaluate", "absent.safetensors"],
    ["predict", "absent.png"], ["predict", "absent.safetensors", "absent.png"],
    ["predict", "absent.png", "--csv", "answers.csv"],
    ["read", "absent.png"], ["read", "absent.safetensors", "absent.png"],
    ["draw", "--no-browser", "--port", "99999"],  # a port that no page can have
    ["draw", "absent.safetensors", "--no-browser", "--port", "99999"]], ids=" ".join)
def test_a_missing_device_is_named_before_anything_is_read(run_cli, tmp_path, command):
    code, out, err = run_cli(*command, "--device", MISSING)
    assert (code, out) == (1, "")
    assert is_about_the_device(err)
    assert not list(tmp_path.iterdir())


def test_a_report_needs_its_device(run_cli, fitted, tmp_path):
    code, out, err = run_cli("report", "simple", "--device", MISSING)
    assert (code, out) == (1, "") and is_about_the_device(err)
    assert not (tmp_path / "runs/simple/report.html").exists()


@pytest.mark.parametrize("command", [
    ["fit", "--arch", "simple", "--bs", 32], ["lr-find", "--arch", "simple", "--bs", 32]],
    ids=["fit", "lr-find"])
def test_training_on_the_cpu(run_cli, digits, command):
    code, _, err = run_cli(*command, "--source", digits, "--device", "cpu")
    assert code == 0 and "device" not in err


def test_the_device_is_among_the_settings_of_a_run(run_cli, digits, tmp_path):
    run_cli("fit", "--arch", "simple", "--source", digits, "--bs", 32, "--device", "cpu")
    file = tmp_path / "runs/simple/settings.ini"
    assert "device = cpu" in file.read_text().splitlines()
    assert read_settings(path=file)["device"] == "cpu"


def test_without_a_name_no_device_is_among_the_settings(run_cli, fitted, tmp_path):
    assert read_settings(path=tmp_path / "runs/simple/settings.ini")["device"] is None


def test_a_run_whose_device_is_missing_leaves_nothing(digits, tmp_path):
    with pytest.raises(BadSetting, match=MISSING):
        train_run(str(digits), "simple", bs=32, device=MISSING, runs=str(tmp_path / "runs"))
    assert not list(tmp_path.iterdir())


def test_images_go_where_they_are_sent(digits):
    dls = digit_dls(digits, bs=32, num_workers=0, device="cpu")
    assert dls.one_batch()[0].device.type == dls.train.pixels.device.type == "cpu"
    with pytest.raises(BadSetting, match=MISSING):
        digit_dls("absent", device=MISSING)


@pytest.mark.parametrize("command", ["predict", "read"])
def test_pictures_on_the_cpu(run_cli, digits, command):
    picture = digits / "testing/4/36.png"
    named = run_cli(command, picture, "--device", "cpu")
    assert named == run_cli(command, picture)
    assert named[0] == 0 and "  4  " in named[1]


def test_evaluation_on_the_cpu(run_cli, digits):
    named = run_cli("evaluate", "--source", digits / "testing", "--device", "cpu")
    assert named[0] == 0 and named[1].startswith("accuracy ")


IMAGES = np.random.default_rng(0).integers(0, 256, (4, 28, 28), np.uint8)


@pytest.fixture
def predictor():
    "A network of one layer that has learnt nothing."
    layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
    return Predictor(TorchNetwork(layers), list("0123456789"))


def test_a_predictor_on_the_cpu_answers_as_before(predictor):
    before = predictor.chances(IMAGES)
    assert predictor.to(torch.device("cpu")) is predictor
    assert np.array_equal(predictor.chances(IMAGES), before)


def test_a_predictor_goes_where_it_is_sent(predictor):
    predictor.to(torch.device("meta"))  # a device of shapes alone, which every machine has
    assert {p.device.type for p in predictor.network.model.parameters()} == {"meta"}


def test_an_onnx_stays_on_the_cpu():
    onnx = Predictor(OnnxNetwork(session=None, path="net.onnx"), list("0123456789"))
    assert onnx.to(torch.device("cpu")) is onnx
    with pytest.raises(BadSetting, match="answers on the CPU, not on cuda:0; .* .safetensors"):
        onnx.to(torch.device("cuda:0"))
