"A network in a file that holds no code, and what it answers."
import io
import json
import os
import pickle
import stat
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from digitfast import predictor as module
from digitfast.errors import BadData, BadImage, BadSetting, RunNotFound
from digitfast.models import simple_net
from digitfast.predictor import BUILDERS, FORMAT, PACKED, Predictor, open_predictor, predictor_of, save_predictor

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)


def network(arch="digitnet", n_out=4) -> torch.nn.Module:
    "A network with statistics of its own in its batch norms, so that a lost one is noticed."
    torch.manual_seed(0)
    model = BUILDERS[arch](n_out=n_out)
    with torch.no_grad():
        for _ in range(3):
            model(torch.rand(16, 1, 28, 28) * 3)
    return model.eval()


@pytest.fixture(scope="module")
def mine() -> Predictor:
    facts = {"run": "größe 数", "accuracy": 0.99, "settings": {"arch": "digitnet", "lr": 1e-3}}
    return Predictor(network(), ["a", "b", "ç", "10"], True, 1.3, 0.7, "digitnet", facts)


@pytest.fixture
def file(mine, tmp_path):
    return save_predictor(mine, tmp_path / "mine.safetensors")


def rewritten(file, **header):
    "The same weights with another header."
    weights = {name: weight.clone() for name, weight in load_file(file).items()}
    known = {"format": FORMAT, "arch": "digitnet", "vocab": list("abcd"), "no_digit": True, "temperature": 1.0,
             "threshold": 0.5, "facts": {}}
    save_file(weights, file, {"digitfast": json.dumps({**known, **header})})
    return file


@pytest.mark.parametrize("arch", BUILDERS)
@pytest.mark.parametrize("no_digit", [False, True])
def test_saved_and_opened(mine, tmp_path, arch, no_digit):
    mine = replace(mine, model=network(arch), arch=arch, no_digit=no_digit)
    again = open_predictor(str(save_predictor(mine, str(tmp_path / "mine.safetensors"))))
    assert np.array_equal(again.chances(IMAGES), mine.chances(IMAGES))
    for name in ("vocab", "no_digit", "temperature", "threshold", "arch", "facts"):
        assert getattr(again, name) == getattr(mine, name)
    assert not again.model.training and [f.name for f in tmp_path.iterdir()] == ["mine.safetensors"]


def test_file_is_as_any_other(file):
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~mask


def test_a_failed_export_leaves_the_old_file(mine, file, monkeypatch, tmp_path):
    before = file.read_bytes()

    def fail(*args):
        raise OSError("disk full")
    monkeypatch.setattr(module, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_predictor(mine, file)
    assert file.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError):  # one that the command line shows in one line
        save_predictor(mine, tmp_path / "absent/mine.safetensors")


@pytest.mark.parametrize("arch", ["", "simple", "resnet18"])
def test_other_architectures_cannot_be_saved(mine, tmp_path, arch):
    with pytest.raises(BadSetting, match="holds digitnet or digitnet_deep.* export it as .pkl"):
        save_predictor(replace(mine, arch=arch), tmp_path / "mine.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("tenths", range(10))
def test_truncated(file, tenths):
    whole = file.read_bytes()
    file.write_bytes(whole[:len(whole) * tenths // 10])
    with pytest.raises(BadData, match=f"{file} is no network of digitfast's"):
        open_predictor(file)


def test_changed_bytes_are_refused_or_harmless(file):
    whole = file.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")  # of the weights
    refused = 0
    for at in [*range(8), *range(8, start, 37), *range(start + 3, start + 4000, 301)]:
        for byte in (0, 255, whole[at] ^ 1):
            file.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1:])
            try:
                chances = open_predictor(file).chances(IMAGES[:1])
            except BadData as e:
                assert str(file) in str(e)
                refused += 1
            else:
                assert np.allclose(chances.sum(1), 1)
    assert refused > 20


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers(mine, tmp_path, value):
    model = network()
    with torch.no_grad():
        next(model.parameters())[0] = value
    with pytest.raises(BadData, match="is damaged"):
        open_predictor(save_predictor(replace(mine, model=model), tmp_path / "mine.safetensors"))


class Payload:
    "What a pickle can do to whoever opens it."

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", [0, 2, 4, "torch", "torch, without zip"])
def test_a_pickle_by_that_name_is_not_run(tmp_path, protocol):
    marker, file = tmp_path / "run", tmp_path / "mine.safetensors"
    if isinstance(protocol, int):
        file.write_bytes(pickle.dumps(Payload(marker), protocol))
    else:
        torch.save(Payload(marker), file, _use_new_zipfile_serialization=protocol == "torch")
    with pytest.raises(BadData, match="is no network"):
        open_predictor(file)
    assert not marker.exists()
    content = io.BytesIO(file.read_bytes())
    torch.load(content, weights_only=False) if isinstance(protocol, str) else pickle.load(content)
    assert marker.exists()  # so it would have been


@pytest.mark.parametrize("header, message", [
    ({"format": "digitfast 2"}, "'digitfast 2'; 'digitfast 1' is wanted"), ({"format": None}, "is wanted"),
    ({"arch": "resnet18"}, "resnet18"), ({"arch": None}, ""), ({"arch": ["digitnet"]}, ""),
    ({"arch": "digitnet_deep"}, ""), ({"vocab": list("abc")}, ""), ({"vocab": []}, ""), ({"vocab": 4}, ""),
    ({"vocab": list("aabc")}, "classes"), ({"temperature": 0}, "temperature"), ({"temperature": -1}, "temperature"),
    ({"temperature": float("nan")}, "temperature"), ({"temperature": float("inf")}, "temperature"),
    ({"temperature": 10**400}, ""), ({"temperature": "warm"}, ""), ({"threshold": None}, ""),
    ({"threshold": 1.1}, "threshold"), ({"threshold": float("nan")}, "threshold"), ({"facts": 3}, ""),
], ids=str)
def test_headers_that_cannot_be(file, header, message):
    with pytest.raises(BadData, match=f"{file}.*{message}"):
        open_predictor(rewritten(file, **header))
    assert open_predictor(rewritten(file)).vocab == list("abcd")  # as the rest of it is right


@pytest.mark.parametrize("metadata", [None, {}, {"other": "{}"}, *({"digitfast": text} for text in (
    "", "null", "[]", "3", '"digitfast 1"', "{", "{}", "[" * 100_000))], ids=lambda m: str(m)[:30])
def test_files_of_others(file, metadata):
    weights = {name: weight.clone() for name, weight in load_file(file).items()}
    save_file(weights, file, metadata)
    with pytest.raises(BadData, match=str(file)):
        open_predictor(file)


def test_weights_that_do_not_fit(mine, file, tmp_path):
    weights = {name: weight.clone() for name, weight in load_file(file).items()}
    header = {"digitfast": json.dumps({"format": FORMAT, "arch": "digitnet", "vocab": mine.vocab, "no_digit": True,
                                       "temperature": 1, "threshold": 0.5, "facts": {}})}
    first, *others = weights
    for wrong, message in (({name: weights[name] for name in others}, f"do not fit digitnet: {first}"),
                           ({**weights, "more.weight": torch.ones(2)}, "do not fit digitnet: more.weight"),
                           ({**weights, first: torch.ones(2)}, "size mismatch"), ({}, "do not fit")):
        save_file(wrong, tmp_path / "wrong.safetensors", header)
        with pytest.raises(BadData, match=message):
            open_predictor(tmp_path / "wrong.safetensors")


def test_no_file(tmp_path):
    for path in (tmp_path / "absent.safetensors", tmp_path, "", "a\0b.safetensors"):
        with pytest.raises(RunNotFound, match="a .safetensors from `digitfast export` is wanted"):
            open_predictor(path)


@pytest.mark.parametrize("n", [1, 20, 700])
def test_chances_sum_to_one_however_many_there_are(mine, n):
    images = np.resize(IMAGES, (n, 28, 28))
    chances = mine.chances(images)
    assert chances.dtype == np.float64 and chances.shape == (n, 5)
    assert np.allclose(chances.sum(1), 1) and (chances > 0).all()
    assert np.allclose(chances, np.resize(mine.chances(IMAGES), (n, 5)), atol=1e-6)
    without = replace(mine, no_digit=False).chances(images)
    assert np.allclose(without.sum(1), 1) and (without[:, -1] == 0).all() and (without[:, :-1] > chances[:, :-1]).all()


def test_chances_are_those_of_the_model(mine):
    with torch.no_grad():
        logits = mine.model(torch.tensor(IMAGES)[:, None] / 255).double() / 1.3
    assert np.allclose(mine.chances(IMAGES)[:, :-1], logits.exp() / (1 + logits.exp().sum(1, keepdim=True)), atol=1e-6)


def test_no_images(mine):
    assert mine.chances(np.zeros((0, 28, 28), np.uint8)).shape == (0, 5)


def test_images_as_they_lie_in_memory(mine, recwarn):
    fixed = IMAGES.copy()
    fixed.flags.writeable = False
    chances = mine.chances(IMAGES)
    assert np.array_equal(mine.chances(fixed), chances) and not recwarn.list
    assert np.array_equal(mine.chances(IMAGES[::-1])[::-1], chances)
    assert np.array_equal(mine.chances(IMAGES[:, ::-1, ::-1].copy()[:, ::-1, ::-1]), chances)
    assert np.array_equal(mine.chances(np.asfortranarray(IMAGES)), chances)
    assert np.array_equal(mine.chances(list(IMAGES)), chances) and (fixed == IMAGES).all()


@pytest.mark.parametrize("images", [
    IMAGES[0], IMAGES[:, None], IMAGES[:, :27], IMAGES[..., None], IMAGES.astype(int), IMAGES / 255, IMAGES > 9,
    np.uint8(3), None, [], [[1], [1, 2]], np.zeros((0, 28), np.uint8), torch.rand(2, 28, 28), "image",
], ids=lambda i: f"{type(i).__name__} {getattr(i, 'dtype', '')} {getattr(i, 'shape', '')}")
def test_bad_shapes(mine, images):
    with pytest.raises(BadImage, match=r"uint8 \[n, 28, 28\]"):
        mine.chances(images)


def test_temperature_moves_confidence_and_no_answer(mine):
    model = network()
    with torch.no_grad():
        list(model.parameters())[-2].mul_(20)  # answers that differ
    images = np.concatenate([IMAGES, IMAGES // 9, 255 - IMAGES // 2])
    mine = replace(mine, model=model, no_digit=False)
    cold, mild, warm = (replace(mine, temperature=t).chances(images) for t in (0.5, 1.0, 3.0))
    assert (cold.max(1) > mild.max(1)).all() and (mild.max(1) > warm.max(1)).all()
    assert (cold.argmax(1) == mild.argmax(1)).all() and (mild.argmax(1) == warm.argmax(1)).all()


def test_predictor_of_a_learner(trained, digits):
    bare = predictor_of(trained)
    assert (bare.vocab, bare.no_digit, bare.temperature, bare.threshold, bare.arch, bare.facts["calibration"]) == (
        list("0123456789"), False, 1.0, 0.5, "", {})
    files = [next((digits / "testing" / label).iterdir()) for label in bare.vocab]
    images = np.stack([np.asarray(Image.open(file)) for file in files])
    with trained.no_bar(), trained.no_logging():
        wanted = np.stack([trained.predict(file)[2] for file in files])
    assert np.allclose(bare.chances(images)[:, :-1], wanted, atol=1e-5)
    summary = {"settings": {"arch": "simple", "non_digits": 0.5, "size": 28}, "accuracy": 0.9, "seconds": {},
               "calibration": {"temperature": 1.7, "threshold": 0.6}}
    full = predictor_of(trained, summary)
    assert (full.no_digit, full.temperature, full.threshold, full.arch) == (True, 1.7, 0.6, "simple")
    assert full.facts == {key: summary[key] for key in ("settings", "accuracy", "calibration")}
    with pytest.raises(BadSetting, match="trained on images of 64 pixels; 28 are wanted"):
        predictor_of(trained, {"settings": {"size": 64}})


def test_network_that_learnt_log_probabilities():
    torch.manual_seed(0)
    model = torch.nn.Sequential(simple_net(), torch.nn.LogSoftmax(dim=1)).eval()
    assert np.allclose(Predictor(model, list("0123456789")).chances(IMAGES),
                       Predictor(model[0], list("0123456789")).chances(IMAGES), atol=1e-6)


def test_packed_network(mnist):
    packed = Predictor.packed()
    assert packed is Predictor.packed() and not packed.model.training
    assert PACKED.stat().st_size < 2_000_000
    assert packed.vocab == list("0123456789") and packed.no_digit and packed.arch in BUILDERS
    assert 0.1 < packed.temperature < 10 and 0 < packed.threshold < 1 and packed.facts["accuracy"] > 0.99
    files = [file for label in packed.vocab for file in sorted((mnist / "testing" / label).iterdir())[:20]]
    chances = packed.chances(np.stack([np.asarray(Image.open(file)) for file in files]))
    right = np.array([packed.vocab[best] == file.parent.name for best, file in
                      zip(chances[:, :-1].argmax(1), files, strict=True)])
    assert right.mean() > 0.97 and right.reshape(10, 20).mean(1).min() > 0.8
    assert chances[right, :-1].max(1).mean() > 0.8
