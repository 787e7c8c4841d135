"A network in a file that holds no code, and its answers."
import os
import stat
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from digitfast import train_run
from digitfast.errors import BadData, BadImage, BadSetting, RunNotFound
from digitfast.files import read_sealed, write_sealed
from digitfast.inference.predictor import (
    PACKED_NETWORK,
    Predictor,
    header_of,
    open_predictor,
    predictor_of,
    save_predictor,
)
from digitfast.inference.torch_network import TorchNetwork
from digitfast.models.architectures import build_network
from digitfast.models.digit_nets import simple_net

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)


def network(arch="digitnet", n_out=4, size=28) -> TorchNetwork:
    "A network whose batch norms have statistics of their own, so that a lost one is noticed."
    torch.manual_seed(0)
    model = build_network(arch, n_out, size)
    with torch.no_grad():
        for _ in range(3):
            model.train()(torch.rand(16, 1, size, size) * 3)
    return TorchNetwork(model)


@pytest.fixture(scope="module")
def mine() -> Predictor:
    facts = {"run": "größe 数", "accuracy": 0.99,
             "settings": {"arch": "digitnet", "lr": 1e-3, "mom": None},
             "versions": {"digitfast": "0.1.0", "torch": "2.15.0"}}
    return Predictor(network(), ["a", "b", "ç", "10"], True, 1.3, 0.7, "digitnet", facts=facts)


@pytest.fixture
def file(mine, tmp_path):
    return save_predictor(mine, tmp_path / "mine.safetensors")


def rewritten(file, tensors=(), **header):
    """Seal the file again with other weights or another header.

    A weight that is None is left out, and so is a field of the header that is `...`.
    """
    weights, known = read_sealed(file)
    weights = {**weights, **dict(tensors)}
    header = {**known, **header}
    write_sealed(file, {name: weight for name, weight in weights.items() if weight is not None},
                 {name: value for name, value in header.items() if value is not ...})
    return file


@pytest.mark.parametrize("arch, size", [
    ("digitnet", 28), ("digitnet_deep", 28), ("simple", 28), ("article", 28), ("digitnet", 64),
    ("simple", 9), ("squeezenet1_0", 64), ("resnet18", 28), ("xresnet18", 28),
    ("regnet_y_400mf", 64), ("mobilenetv3_small_050", 64)])
def test_saved_and_opened(mine, tmp_path, arch, size):
    images = np.random.default_rng(0).integers(0, 256, (5, size, size), dtype=np.uint8)
    mine = replace(mine, network=network(arch, size=size), arch=arch, size=size,
                   no_digit=size == 28, form="as it comes")
    again = open_predictor(str(save_predictor(mine, str(tmp_path / "mine.safetensors"))))
    assert np.array_equal(again.chances(images), mine.chances(images))
    for name in ("vocab", "no_digit", "temperature", "threshold", "arch", "size", "form", "facts"):
        assert getattr(again, name) == getattr(mine, name)
    assert not again.network.model.training
    assert [f.name for f in tmp_path.iterdir()] == ["mine.safetensors"]


def test_the_file_has_the_usual_permissions(file):
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~mask


def test_a_failed_export_leaves_the_old_file(mine, file, monkeypatch, tmp_path):
    before = file.read_bytes()

    def fail(*args):
        raise OSError("disk full")
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        save_predictor(mine, file)
    assert file.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError):  # the command line shows it in one line
        save_predictor(mine, tmp_path / "absent/mine.safetensors")


@pytest.mark.parametrize("wrong", [{"arch": ""}, {"network": lambda images: images}])
def test_what_cannot_be_saved(mine, tmp_path, wrong):
    with pytest.raises(BadSetting, match="whose arch is known by name.* export this one as .pkl"):
        save_predictor(replace(mine, **wrong), tmp_path / "mine.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers(file, value):
    bias = next(name for name in read_sealed(file)[0] if name.endswith("bias"))
    changed = torch.full_like(read_sealed(file)[0][bias], value)
    message = f"{file} has weights that are not finite numbers: {bias}; .*diverged"
    with pytest.raises(BadData, match=message):
        open_predictor(rewritten(file, {bias: changed}))


@pytest.mark.parametrize("field, value, message", [
    ("format", "digitfast 1", "must be 'digitfast 2'"),
    ("format", ..., "None, which must be 'digitfast 2'"),
    ("arch", ..., "without arch"), ("arch", None, "arch = None"), ("arch", ["digitnet"], "arch = "),
    ("arch", "os.system('x')", "arch = "), ("arch", "../x", "arch = "),
    ("arch", "a" * 81, "arch = "),
    ("arch", "resnet81", "cannot be built.*unknown architecture 'resnet81'"),
    ("arch", "builtins.eval", "unknown arch"), ("arch", "torch.hub.load", "unknown architecture"),
    ("arch", "__init__", "unknown architecture"), ("arch", "list_models", "unknown architecture"),
    ("arch", "vit_b_16", "cannot be built"),
    ("arch", "digitnet_deep", "lacks the weights .* do not fit digitnet_deep"),
    ("vocab", list("abc"), "do not fit digitnet: .* instead of"), ("vocab", [], "vocab = "),
    ("vocab", 4, "vocab = "), ("vocab", list("aabc"), "vocab = .* different"),
    ("vocab", [1, 2, 3, 4], "vocab"), ("vocab", ["", "a"], "vocab"),
    ("vocab", ["a"] * 10**4, "vocab"), ("vocab", "abcd", "vocab"),
    ("size", 64, "do not fit"), ("size", 0, "size = 0"), ("size", True, "size"),
    ("size", 28.0, "size"), ("size", 10**9, "size"), ("size", 5, "cannot be built.*7×7"),
    ("form", "other", "form = 'other'; it must be 'mnist' or 'as it comes'"),
    ("form", ["mnist"], "form"),
    ("normalisation", {"divide_by": 1}, "normalisation"),
    ("normalisation", ..., "without normalisation"),
    ("no_digit", 1, "no_digit = 1; it must be true or false"), ("no_digit", "true", "no_digit"),
    ("temperature", 0, "temperature"), ("temperature", -1, "temperature"),
    ("temperature", float("nan"), "temperature"), ("temperature", float("inf"), "temperature"),
    ("temperature", 10**400, "temperature"), ("temperature", "warm", "temperature = 'warm'"),
    ("temperature", True, "temperature"), ("temperature", ..., "without temperature"),
    ("threshold", None, "threshold"), ("threshold", 1.1, "threshold"),
    ("threshold", float("nan"), "threshold"),
    ("facts", 3, "facts"), ("facts", {}, "without facts.versions"),
    ("more", 1, "unknown field 'more'"),
    *(("facts", {"versions": {"digitfast": "1", "torch": "2"}, **facts}, message)
      for facts, message in [
        ({"versions": {"torch": "2"}}, "facts.versions"),
        ({"versions": {"digitfast": 1, "torch": "2"}}, "facts.versions"),
        ({"accuracy": 1.5}, "facts.accuracy = 1.5"), ({"settings": {"a": [1]}}, "facts.settings"),
        ({"settings": 1}, "facts.settings"), ({"run": 7}, "facts.run"),
        ({"code": "1"}, "unknown field facts.'code'"),
        ({"calibration": {"a": "b"}}, "facts.calibration"),
        ({"data_sha256": "z" * 64}, "facts.data_sha256"), ({"parameters": -1}, "facts.parameters"),
        ({"validation_images": 0.5}, "facts.validation_images"),
        ({"validated_on": ""}, "facts.validated_on"),
        ({"accuracy_interval_95": [0]}, "facts.accuracy_interval_95")]),
], ids=lambda v: str(v)[:40])
def test_headers_that_cannot_be(file, field, value, message):
    with pytest.raises(BadData, match=f"(?s){file}.*{message}"):
        open_predictor(rewritten(file, **{field: value}))


@pytest.mark.parametrize("header", [None, [], 3, "digitfast 2", {}], ids=str)
def test_files_with_another_header(file, header):
    write_sealed(file, read_sealed(file)[0], header)
    with pytest.raises(BadData, match=f"{file} has the format .*, which must be 'digitfast 2'"):
        open_predictor(file)


def test_weights_that_do_not_fit(file):
    before = file.read_bytes()
    weights, _ = read_sealed(file)
    first = next(name for name in weights if name.endswith("weight"))
    for wrong, message in (
            ({first: None}, f"lacks the weights {first}: they do not fit digitnet"),
            ({"more.weight": torch.ones(2)}, "has unknown weights more.weight"),
            ({first: torch.ones(2)}, rf"{first} is float32 \[2\] instead of float32 \["),
            ({first: weights[first].double()}, f"{first} is float64 .* instead of float32"),
            (dict.fromkeys(weights), "lacks the weights .* more")):
        file.write_bytes(before)
        with pytest.raises(BadData, match=message):
            open_predictor(rewritten(file, wrong))


@pytest.mark.parametrize("percent", range(100))
def test_cut_off_or_changed(file, percent):
    whole = file.read_bytes()
    at = len(whole) * percent // 100
    for broken in (whole[:at], whole[:at] + bytes([whole[at] ^ 1 << percent % 8]) + whole[at + 1:]):
        file.write_bytes(broken)
        with pytest.raises(BadData, match=str(file)):
            open_predictor(file)


def test_no_file(tmp_path):
    for path in (tmp_path / "absent.safetensors", tmp_path, "", "a\0b.safetensors"):
        with pytest.raises(RunNotFound, match="must be a run folder, or a .safetensors or .onnx"):
            open_predictor(path)


@pytest.mark.parametrize("n", [1, 20, 700])
def test_chances_sum_to_one_however_many_there_are(mine, n):
    images = np.resize(IMAGES, (n, 28, 28))
    chances = mine.chances(images)
    assert chances.dtype == np.float64 and chances.shape == (n, 5)
    assert np.allclose(chances.sum(1), 1)
    assert (chances > 0).all()
    assert np.allclose(chances, np.resize(mine.chances(IMAGES), (n, 5)), atol=1e-6)
    without = replace(mine, no_digit=False).chances(images)
    assert np.allclose(without.sum(1), 1)
    assert (without[:, -1] == 0).all()
    assert (without[:, :-1] > chances[:, :-1]).all()


def test_chances_are_those_of_the_model(mine):
    with torch.no_grad():
        logits = mine.network.model(torch.tensor(IMAGES)[:, None] / 255).double() / 1.3
    wanted = logits.exp() / (1 + logits.exp().sum(1, keepdim=True))
    assert np.allclose(mine.chances(IMAGES)[:, :-1], wanted, atol=1e-6)


def test_no_images(mine):
    assert mine.chances(np.zeros((0, 28, 28), np.uint8)).shape == (0, 5)


def test_any_layout_in_memory(mine, recwarn):
    fixed = IMAGES.copy()
    fixed.flags.writeable = False
    chances = mine.chances(IMAGES)
    assert np.array_equal(mine.chances(fixed), chances) and not recwarn.list
    assert np.array_equal(mine.chances(IMAGES[::-1])[::-1], chances)
    assert np.array_equal(mine.chances(IMAGES[:, ::-1, ::-1].copy()[:, ::-1, ::-1]), chances)
    assert np.array_equal(mine.chances(np.asfortranarray(IMAGES)), chances)
    assert np.array_equal(mine.chances(list(IMAGES)), chances) and (fixed == IMAGES).all()


@pytest.mark.parametrize("images", [
    IMAGES[0], IMAGES[:, None], IMAGES[:, :27], IMAGES[..., None], IMAGES.astype(int),
    IMAGES / 255, IMAGES > 9, np.uint8(3), None, [], [[1], [1, 2]], np.zeros((0, 28), np.uint8),
    torch.rand(2, 28, 28), "image",
], ids=lambda i: f"{type(i).__name__} {getattr(i, 'dtype', '')} {getattr(i, 'shape', '')}")
def test_bad_shapes(mine, images):
    with pytest.raises(BadImage, match=r"uint8 \[n, 28, 28\]"):
        mine.chances(images)


def test_temperature_moves_confidence_and_no_answer(mine):
    asked = network()
    with torch.no_grad():
        list(asked.model.parameters())[-2].mul_(20)  # answers that differ
    images = np.concatenate([IMAGES, IMAGES // 9, 255 - IMAGES // 2])
    mine = replace(mine, network=asked, no_digit=False)
    cold, mild, warm = (replace(mine, temperature=t).chances(images) for t in (0.5, 1.0, 3.0))
    assert (cold.max(1) > mild.max(1)).all() and (mild.max(1) > warm.max(1)).all()
    assert (cold.argmax(1) == mild.argmax(1)).all() and (mild.argmax(1) == warm.argmax(1)).all()


def test_predictor_of_a_learner(trained, digits):
    bare = predictor_of(trained)
    assert bare.vocab == list("0123456789")
    assert (bare.no_digit, bare.temperature, bare.threshold) == (False, 1.0, 0.5)
    assert (bare.arch, bare.facts, bare.form) == ("", {}, "as it comes")
    files = [next((digits / "testing" / label).iterdir()) for label in bare.vocab]
    images = np.stack([np.asarray(Image.open(file)) for file in files])
    with trained.no_bar(), trained.no_logging():
        wanted = np.stack([trained.predict(file)[2] for file in files])
    assert np.allclose(bare.chances(images)[:, :-1], wanted, atol=1e-5)
    summary = {"settings": {"arch": "simple", "non_digits": 0.5, "size": 28}, "accuracy": 0.9,
               "seconds": {}, "calibration": {"temperature": 1.7, "threshold": 0.6}}
    full = predictor_of(trained, summary)
    assert (full.no_digit, full.temperature, full.threshold) == (True, 1.7, 0.6)
    assert full.arch == "simple"
    assert full.facts == {key: summary[key] for key in ("settings", "accuracy", "calibration")}
    assert (full.form, full.source) == ("as it comes", "mnist")
    assert predictor_of(trained, {"form": "mnist"}).form == "mnist"


def test_predictor_of_a_learner_of_plain_fastai(digits):
    "Its transforms are kept: three channels, another size, and its normalisation."
    from fastai.vision.all import (
        ImageDataLoaders,
        Normalize,
        Resize,
        imagenet_stats,
        resnet18,
        vision_learner,
    )
    dls = ImageDataLoaders.from_folder(
        digits, train="training", valid="testing", bs=8, num_workers=0, item_tfms=Resize(32),
        batch_tfms=Normalize.from_stats(*imagenet_stats))
    learn = vision_learner(dls, resnet18, pretrained=False)
    predictor = predictor_of(learn)
    file = digits / "testing/4/30.png"
    assert (predictor.size, predictor.form) == (32, "as it comes")
    image = np.asarray(Image.open(file).resize((32, 32), Image.Resampling.BILINEAR))
    with learn.no_bar(), learn.no_logging():
        wanted = learn.predict(file)[2]
    assert np.allclose(predictor.chances(image[None])[0, :-1], wanted, atol=1e-4)


def test_network_that_learnt_log_probabilities():
    torch.manual_seed(0)
    model = torch.nn.Sequential(simple_net(), torch.nn.LogSoftmax(dim=1)).eval()
    vocab = list("0123456789")
    one, other = (Predictor(TorchNetwork(net), vocab) for net in (model, model[0]))
    assert np.allclose(one.chances(IMAGES), other.chances(IMAGES), atol=1e-6)


@pytest.mark.parametrize("answer, message", [
    (np.zeros((20, 3)), r"gives \[20, 3\] for 20 images; .* a logit for each of 4 classes"),
    (np.full((20, 4), np.nan), "not a number"),
], ids=["shape", "nan"])
def test_answers_that_are_not_logits(mine, answer, message):
    with pytest.raises(BadData, match=message):
        replace(mine, network=lambda images: answer).chances(IMAGES)


def test_packed_network(mnist):
    packed = Predictor.packed()
    assert packed is Predictor.packed() and not packed.network.model.training
    assert PACKED_NETWORK.stat().st_size < 2_000_000
    assert packed.vocab == list("0123456789") and packed.no_digit
    assert packed.form == "mnist" and packed.size == 28
    assert header_of(packed)["facts"]["versions"].keys() >= {"digitfast", "torch"}
    assert 0.1 < packed.temperature < 10 and 0 < packed.threshold < 1
    assert packed.facts["accuracy"] > 0.99
    files = [file for label in packed.vocab
             for file in sorted((mnist / "testing" / label).iterdir())[:20]]
    chances = packed.chances(np.stack([np.asarray(Image.open(file)) for file in files]))
    right = np.array([packed.vocab[best] == file.parent.name for best, file in
                      zip(chances[:, :-1].argmax(1), files, strict=True)])
    assert right.mean() > 0.97 and right.reshape(10, 20).mean(1).min() > 0.8
    assert chances[right, :-1].max(1).mean() > 0.8


@pytest.mark.parametrize(("name", "message"), [
    ("nowhere", "nowhere does not exist; it must be a run folder, or a .safetensors or .onnx"),
    (".", "is a folder without model.safetensors"), ("x.txt", "x.txt is not a network")])
def test_what_is_no_network(tmp_path, name, message):
    (tmp_path / "x.txt").write_text("text")
    with pytest.raises(RunNotFound, match=message):
        open_predictor(tmp_path / name)


def test_a_run_folder_is_opened(mine, tmp_path):
    save_predictor(mine, tmp_path / "model.safetensors")
    assert open_predictor(tmp_path).vocab == mine.vocab


def test_what_is_saved_must_be_a_predictor(trained, tmp_path):
    message = r"must be a Predictor, not .*; make one with predictor_of\(learn\)"
    with pytest.raises(BadSetting, match=message):
        save_predictor(trained, tmp_path / "x.safetensors")


def test_a_run_is_opened_and_describes_its_learner(digits, tmp_path):
    run = train_run(str(digits), arch="simple", bs=32, epochs=2, runs=str(tmp_path))
    assert open_predictor(run).arch == predictor_of(run.learner(), run).arch == "simple"
