"A run as an .onnx: the same answers, no torch, and a file that cannot be changed unnoticed."
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from digitfast import BadData, BadSetting, DigitError, open_predictor, train_run
from digitfast.inference import onnx_export as module
from digitfast.inference.onnx_export import export_onnx
from digitfast.inference.onnx_network import EXTERNAL
from digitfast.inference.predictor import Predictor, header_of
from digitfast.inference.torch_network import TorchNetwork
from digitfast.models.architectures import build_network
from digitfast.runs.export import export_run

IMAGES = np.random.default_rng(0).integers(0, 256, (1000, 28, 28), dtype=np.uint8)


@pytest.fixture(scope="module")
def run(digits, tmp_path_factory):
    runs = str(tmp_path_factory.mktemp("runs"))
    return train_run(str(digits), "digitnet", bs=32, epochs=6, holdout=0.2, runs=runs)


@pytest.fixture(scope="module")
def exported(run) -> Path:
    return export_run(run.path, run.path.parent / "mine.onnx")


def untrained(arch: str, size: int) -> Predictor:
    torch.manual_seed(0)
    network = TorchNetwork(build_network(arch, 3, size))
    return Predictor(network, ["a", "b", EXTERNAL], size=size, arch=arch,
                     facts={"settings": {"source": f"/{EXTERNAL}/x"}})


@pytest.mark.parametrize("n", [0, 1, 7, 1000])
def test_the_same_answers_for_any_number_of_images(run, exported, n):
    float32 = run.predictor()
    onnx = open_predictor(exported)
    assert np.abs(onnx.chances(IMAGES[:n]) - float32.chances(IMAGES[:n])).max(initial=0) <= 1e-4
    assert header_of(onnx) == header_of(float32)


@pytest.mark.parametrize("arch, size", [
    ("digitnet_deep", 28), ("simple", 12), ("article", 28), ("resnet18", 32),
    ("squeezenet1_0", 64), ("xresnet18", 28), ("digitnet", 64)])
def test_architectures_and_sizes(tmp_path, capfd, arch, size):
    predictor = untrained(arch, size)
    images = np.random.default_rng(0).integers(0, 256, (10, size, size), dtype=np.uint8)
    again = open_predictor(export_onnx(predictor, tmp_path / "mine.onnx", images))
    assert np.allclose(again.chances(images[:3]), predictor.chances(images[:3]), atol=1e-5)
    # EXTERNAL survives in the header, though other files may not hold the word
    assert again.vocab == predictor.vocab and again.source == predictor.source
    assert capfd.readouterr() == ("", "")


def test_int8_is_smaller_and_answers_alike(run, exported, tmp_path, digits):
    small = export_run(run.path, tmp_path / "small.onnx", int8=True)
    assert small.stat().st_size < 0.6 * exported.stat().st_size
    files = sorted((digits / "testing").glob("*/*.png"))
    from PIL import Image
    images = np.stack([np.asarray(Image.open(f)) for f in files])
    one, other = (open_predictor(file).chances(images)[:, :-1].argmax(1)
                  for file in (exported, small))
    assert (one == other).mean() > 0.9


def test_what_it_says_of_itself(exported):
    import onnx
    model = onnx.load(exported)
    props = {prop.key: prop.value for prop in model.metadata_props}
    assert re.search(
        r"28×28.*divided by 255.*as those that the network was trained on.*softmax\.",
        props["pre-processing"])
    assert json.loads(props["digitfast"])["vocab"] == list("0123456789")
    torch_path = str(Path(torch.__file__).parent)
    assert torch_path.encode() not in exported.read_bytes()  # nor any other path of this machine
    onnx.checker.check_model(model)


def test_a_network_that_differs_is_not_written(run, tmp_path, monkeypatch):
    honest = module.in_onnx

    def other(model, *args):
        changed = build_network("digitnet", 10, 28)
        return honest(changed.eval(), *args)
    monkeypatch.setattr(module, "in_onnx", other)
    with pytest.raises(BadData, match="was not written: its logits differ"):
        export_onnx(run.predictor(), tmp_path / "mine.onnx", IMAGES)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("percent", range(100))
def test_cut_off_or_changed(exported, tmp_path, percent):
    whole = exported.read_bytes()
    file = tmp_path / "x.onnx"
    at = len(whole) * percent // 100
    for broken in (whole[:at], whole[:at] + bytes([whole[at] ^ 1 << percent % 8]) + whole[at + 1:]):
        file.write_bytes(broken)
        with pytest.raises(BadData, match="x.onnx"):
            open_predictor(file)


def test_what_cannot_be_exported(run, exported, tmp_path):
    with pytest.raises(BadSetting, match="only a torch network can be exported as .onnx"):
        export_onnx(open_predictor(exported), tmp_path / "x.onnx", IMAGES)
    for to, int8 in (("x.txt", False), ("x.safetensors", True), ("x.pkl", True)):
        with pytest.raises(BadSetting, match=f"file to export to.* must be .*{to}"):
            export_run(run.path, tmp_path / to, int8=int8)
    assert not list(tmp_path.iterdir())


def test_without_onnxruntime(exported, tmp_path, monkeypatch):
    for package in ("onnxruntime", "onnx"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DigitError, match="pip install onnxruntime"):
        open_predictor(exported)
    with pytest.raises(DigitError, match="pip install onnx onnxscript onnxruntime"):
        export_onnx(untrained("simple", 28), tmp_path / "x.onnx", IMAGES)


@pytest.mark.parametrize("side", [28, 200])
def test_predict_needs_no_torch(exported, digits, tmp_path, side):
    "Nor anything else that is slow to import, not even to find the ink in a photo."
    from PIL import Image
    picture = Image.open(digits / "testing/4/30.png").resize((side, side))
    picture.save(tmp_path / "one.png")
    heavy = {"torch", "fastai", "sklearn", "matplotlib", "pandas", "torchvision", "scipy.stats",
             "onnx"}
    for command in ("predict", "read"):
        code = ("import sys; from digitfast.cli.app import main\n"
                "try: main()\nexcept SystemExit as e: "
                f"print(e.code, sorted({heavy} & set(sys.modules)))")
        args = [command, str(exported), str(tmp_path / "one.png")]
        done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True)
        assert done.stdout.splitlines()[-1] == "0 []" and not done.stderr
