"Trainings that start from the weights of a trained network."
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image

from digitfast import Predictor, find_run, train_run
from digitfast.data.labelled import labelled_images
from digitfast.errors import BadData, BadSetting, RunNotFound
from digitfast.runs import digits as run_digits_module
from digitfast.runs.digits import checked_settings, run_digits, validation_digits
from digitfast.training.recipe import Recipe


@pytest.fixture
def trained_run(digits, tmp_path_factory):
    "A small trained run of the ten digits."
    folder = tmp_path_factory.mktemp("start")
    return train_run(str(digits), "simple", bs=32, epochs=3, runs=str(folder))


def weights(run):
    return run.predictor().network.model.state_dict()


def test_the_weights_are_those_of_the_start(trained_run, digits, tmp_path):
    run = train_run(str(digits), start=str(trained_run.path), lr=1e-9, bs=32, runs=str(tmp_path))
    for name, weight in weights(trained_run).items():
        assert torch.allclose(weight, weights(run)[name], atol=1e-6), name
    assert run.summary["settings"]["arch"] == "simple"


def test_a_file_and_a_name_are_starts_too(trained_run, digits, tmp_path):
    file = trained_run.path / "model.safetensors"
    run = train_run(str(digits), start=str(file), bs=32, runs=str(tmp_path))
    again = train_run(str(digits), start=run.path.name, bs=32, runs=str(tmp_path))
    assert again.summary["accuracy"] >= 0.8


def test_other_classes_get_a_new_last_layer(trained_run, digits, tmp_path):
    pixels = np.stack([np.asarray(Image.open(file))
                       for file in sorted(digits.glob("training/[37]/*.png"))])
    folder = tmp_path / "signs"
    for i, image in enumerate(pixels):
        (folder / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / "ab"[i % 2] / f"{i}.png")
    run = train_run(str(folder), start=str(trained_run.path), lr=1e-9, bs=8, runs=str(tmp_path))
    before, after = weights(trained_run), weights(run)
    assert after["5.weight"].shape == (2, 30)
    assert "expected_calibration_error" in run.summary["calibration"]  # its own, not the start's
    assert torch.allclose(before["1.weight"], after["1.weight"], atol=1e-6)
    assert run.summary["settings"]["freeze_epochs"] == 1


def test_frozen_epochs_train_the_last_layer_alone(trained_run, digits, tmp_path, monkeypatch):
    from digitfast.runs import run as runs
    monkeypatch.setattr(runs, "train_learner", lambda learn, *args, **kwargs: (_ for _ in ()).throw(
        BadSetting("stop")))
    seen = {}

    def keep(learn, recipe):
        before = {name: weight.clone() for name, weight in learn.model.state_dict().items()}
        real(learn, recipe)
        seen.update({name: bool((before[name] != weight).any())
                     for name, weight in learn.model.state_dict().items()})
    real = runs.train_last_layer
    monkeypatch.setattr(runs, "train_last_layer", keep)
    with pytest.raises(BadSetting, match="stop"):
        train_run(str(digits), start=str(trained_run.path), freeze_epochs=2, bs=32,
                  runs=str(tmp_path))
    assert {name for name, changed in seen.items() if changed} == {"5.weight", "5.bias"}


@pytest.mark.parametrize("settings, problem", [
    ({"arch": "resnet18"}, "has arch=simple, not resnet18; omit arch"),
    ({"size": 32}, "has size=28, not 32; omit size"),
    ({"replay": 1.0}, "replay must be 0 to 0.95"),
    ({"freeze_epochs": -1}, "freeze_epochs must be 0 or more")])
def test_settings_that_do_not_fit_the_start(trained_run, digits, tmp_path, settings, problem):
    with pytest.raises(BadSetting, match=problem):
        train_run(str(digits), start=str(trained_run.path), runs=str(tmp_path), **settings)
    assert not list(tmp_path.iterdir())


def test_a_start_that_is_not_there(digits, tmp_path):
    with pytest.raises(RunNotFound, match="there is no run 'absent'"):
        train_run(str(digits), start="absent", runs=str(tmp_path))


@pytest.mark.parametrize("settings", [{"replay": 0.5}, {"freeze_epochs": 1}])
def test_what_needs_a_start(digits, settings):
    with pytest.raises(BadSetting, match="need a network to start from"):
        train_run(str(digits), **settings)


@pytest.fixture(scope="module")
def drawings(digits, tmp_path_factory):
    "A folder of drawings of 3 and 7, dark on light paper, each of another size."
    folder = tmp_path_factory.mktemp("drawings")
    for label in "37":
        (folder / label).mkdir()
        for i, file in enumerate(sorted((digits / "training" / label).iterdir())[:5]):
            side = 150 + 20 * i
            ink = Image.open(file).resize((side, side))
            paper = Image.new("L", (side + 60, side + 60), 255)
            paper.paste(Image.eval(ink, lambda value: 255 - value), (30, 30))
            paper.save(folder / label / f"{i}.png")
    return folder


def settings(**given):
    return asdict(Recipe(start="reader", **given))


@pytest.fixture
def few(monkeypatch):
    "So few images in an epoch that the test is quick."
    monkeypatch.setattr(run_digits_module, "REPLAYED", 60)


def test_drawings_are_brought_into_mnists_form(drawings, few):
    found = run_digits(settings(source=str(drawings)), Predictor.packed())
    chances = Predictor.packed().chances(found.pixels)[:, :10]
    assert [str(i) for i in chances.argmax(1)] == [found.vocab[i] for i in found.labels]


def test_images_in_mnists_form_stay_as_they_are(mnist):
    assert run_digits(settings(source=str(mnist)), Predictor.packed()) == mnist


def test_a_replay_mixes_mnists_images_in(drawings, few, mnist):
    found = run_digits(settings(source=str(drawings), replay=0.75), Predictor.packed())
    own = run_digits(settings(source=str(drawings)), Predictor.packed())
    n_own = sum(any(np.array_equal(image, drawing) for drawing in own.pixels)
                for image in found.pixels[:found.n_training])
    assert (found.n_training, n_own) == (60, 15)
    assert (len(found.validation()), found.validated_on) == (10_000, "test images")
    assert found.vocab == list("0123456789")


@pytest.mark.parametrize("vocab, problem", [
    (["3", "x"], "also has x"), ])
def test_a_replay_takes_digits_only(vocab, problem, few):
    pixels = np.zeros((4, 28, 28), np.uint8)
    pixels[:, 5:20, 10:14] = 255
    source = labelled_images(pixels, vocab * 2)
    with pytest.raises(BadSetting, match=problem):
        run_digits({**settings(replay=0.5), "source": source}, Predictor.packed())


def test_a_hand_is_learned_from_drawings(drawings, few, mnist, tmp_path):
    run = train_run(str(drawings), start="reader", replay=0.5, bs=32, runs=str(tmp_path))
    used = run.summary["settings"]
    assert (used["arch"], used["lr"], used["augment"]) == ("digitnet_deep", 0.0002, 0.5)
    assert used["non_digits"] == 0.2
    assert run.summary["validation_images"] == 10_000
    assert run.summary["form"] == "mnist"
    reader, mine = Predictor.packed(), run.predictor()
    assert (mine.temperature, mine.threshold) == (reader.temperature, reader.threshold)
    assert find_run(run.path).predictor().no_digit
    assert len(validation_digits(run.predictor())) == 10_000


@pytest.mark.parametrize("damaged", [
    {"seed": "x"}, {"holdout": None}, {"start": 5}, {"replay": 0.999999}, {"seed": 2**70},
    {"replay": 0.5}])
def test_damaged_settings_of_a_file(damaged):
    with pytest.raises(BadData, match="the settings of the run are damaged"):
        checked_settings(damaged)


def test_a_replay_validates_on_mnist_alone(drawings):
    with pytest.raises(BadSetting, match="leave out holdout"):
        train_run(str(drawings), start="reader", replay=0.5, holdout=0.1)


def test_a_run_is_evaluated_without_the_network_that_it_started_from(trained_run, mnist, tmp_path):
    run = train_run("mnist-tiny", start=str(trained_run.path), bs=64, runs=str(tmp_path))
    trained_run.path.rename(trained_run.path.with_name("elsewhere"))
    assert len(validation_digits(run.predictor())) == 200
