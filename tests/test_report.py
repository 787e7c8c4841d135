"What a report says, compared with what the run and scikit-learn say."
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from digitfast import BadData, DataNotFound, evaluate_learner, find_run, train_run
from digitfast.files import read_sealed, write_sealed
from digitfast.report import gather as report
from digitfast.report.gather import gather_evidence


@pytest.fixture(scope="module")
def made(digits, tmp_path_factory):
    "Makes runs of a second on the small digits."
    runs = tmp_path_factory.mktemp("runs")

    def make(**settings):
        return train_run(**{"source": str(digits), "arch": "simple", "bs": 32, "lr": 0.01,
                            "runs": str(runs), **settings})
    return make


@pytest.fixture
def no_cross_validation(monkeypatch):
    "Label errors are looked for elsewhere."
    monkeypatch.setattr(report, "cross_validated_chances", lambda *dls: [
        np.full((dl.n, dl.c), 1 / dl.c) for dl in dls])


def test_it_is_measured_as_the_run_was(made, digits):
    run = made(epochs=8)
    found = gather_evidence(run)
    assert found.evidence.accuracy == pytest.approx(run.summary["accuracy"])
    theirs = evaluate_learner(run.learner(), digits / "testing")
    assert (found.evidence.confusion == theirs.confusion).all()
    assert found.evidence.loss == pytest.approx(theirs.loss)
    assert found.same_images
    assert found.measured_on == "test images"
    assert len(found.worst) == 40
    chances = [shown.of_label for shown in found.worst]
    assert chances == sorted(chances)
    rows = np.sort(found.chances[np.arange(120), found.labels])[:40]
    assert chances == pytest.approx(rows)
    for shown in found.worst[:5]:  # the picture of the file, and the label of its folder
        assert (np.asarray(Image.open(digits / shown.file)) == shown.image).all()
        assert shown.file.split("/")[:2] == ["testing", shown.label]
        assert shown.probability >= shown.of_label
    assert found.training_errors.images == 300
    assert found.measured_errors.images == 120
    assert not found.training_errors.missing
    assert found.seconds.keys() >= {"looking for wrong labels"}


def test_a_holdout_run_leaves_the_test_images_alone(made, copy_of_digits, no_cross_validation):
    shutil.rmtree(copy_of_digits / "testing")
    run = made(source=str(copy_of_digits), holdout=0.2, epochs=4)
    found = gather_evidence(run)
    assert found.measured_on == "held-out training images"
    assert found.evidence.n == 60
    assert found.same_images
    assert found.evidence.accuracy == pytest.approx(run.summary["accuracy"])
    pixels = np.stack([np.asarray(Image.open(copy_of_digits / shown.file))
                       for shown in found.worst])
    chances = run.predictor().chances(pixels)  # calibrated as the run is
    assert run.predictor().temperature == run.summary["calibration"]["temperature"]
    probabilities = [shown.probability for shown in found.worst]
    assert probabilities == pytest.approx(chances.max(axis=1).tolist())


def test_other_sizes_and_architectures(made, no_cross_validation):
    for settings in ({"size": 16}, {"arch": "article", "label_smoothing": 0.0},
                     {"arch": "digitnet", "size": 40}):
        run = made(**settings)
        found = gather_evidence(run)
        assert found.evidence.accuracy == pytest.approx(run.summary["accuracy"]), settings
        assert found.worst[0].image.shape == (28, 28) and found.same_images


def test_non_digits_are_among_the_answers(made, no_cross_validation):
    run = made(arch="digitnet", non_digits=0.5)
    found = gather_evidence(run)
    assert found.chances[:, -1].max() > 0
    assert found.evidence.accuracy == pytest.approx(run.summary["accuracy"])


def test_flipped_labels_are_among_the_doubtful(made, copy_of_digits):
    for split, name in (("training", "0.png"), ("training", "7.png"), ("testing", "33.png")):
        folder = copy_of_digits / split
        (folder / "4" / name).rename(folder / "6" / f"wrong-{name}")
    found = gather_evidence(made(source=str(copy_of_digits)))
    doubtful = [shown.file for shown in found.training_errors.shown]
    assert {"training/6/wrong-0.png", "training/6/wrong-7.png"} <= set(doubtful[:6])
    assert "testing/6/wrong-33.png" in [shown.file for shown in found.measured_errors.shown][:3]
    assert all(shown.answer != shown.label for shown in found.training_errors.shown)


def test_few_images_and_other_classes(tmp_path, made):
    rng = np.random.default_rng(0)
    for split, n in (("train", 3), ("valid", 2)):
        for label in ("<b>", "é 1"):
            folder = tmp_path / "few" / split / label
            folder.mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 256, (9, 11), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    found = gather_evidence(made(source=str(tmp_path / "few"), bs=2))
    assert found.evidence.n == 4
    assert len(found.worst) == 4
    assert not found.training_errors.missing
    for i in (1, 2):
        (tmp_path / f"few/train/<b>/{i}.png").unlink()
    found = gather_evidence(made(source=str(tmp_path / "few"), bs=2))
    assert "<b> has fewer than two" in found.training_errors.missing
    assert found.measured_errors.missing


def test_digits_that_changed_or_went(made, copy_of_digits, no_cross_validation):
    run = made(source=str(copy_of_digits))
    image = copy_of_digits / "testing/0/30.png"
    Image.fromarray(255 - np.asarray(Image.open(image))).save(image)
    assert gather_evidence(run).same_images is False
    for split in ("training", "testing"):
        (copy_of_digits / split / "9").rename(copy_of_digits / split / "nine")
    with pytest.raises(BadData, match="nine; .* was trained on"):
        gather_evidence(run)
    shutil.rmtree(copy_of_digits)
    with pytest.raises(DataNotFound):
        gather_evidence(run)


def test_weights_that_are_no_numbers_have_nothing_to_report(made):
    run = made()
    weights, header = read_sealed(run.path / "model.safetensors")
    no_numbers = {key: value * float("nan") for key, value in weights.items()}
    write_sealed(run.path / "model.safetensors", no_numbers, header)
    with pytest.raises(BadData, match="not finite numbers: .*; its training has diverged"):
        gather_evidence(run)


def test_a_run_is_left_as_it_was(made, no_cross_validation):
    run = made()
    before = {file.name: file.read_bytes() for file in run.path.iterdir()}
    gather_evidence(find_run(run.path))
    assert before == {file.name: file.read_bytes() for file in run.path.iterdir()}
    assert json.loads(before["summary.json"]) == run.summary


def test_the_generators_of_the_caller_are_left_as_they_are(made, no_cross_validation):
    import random

    import torch
    from fastai.torch_core import set_seed
    run, drawn = made(), []
    for seed in (1, 2):
        set_seed(seed)
        gather_evidence(run)
        drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert all(first != second for first, second in zip(*drawn, strict=True))
