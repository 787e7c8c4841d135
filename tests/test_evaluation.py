"""`evaluate_learner` and `predict_files` agree with fastai, and report input that is wrong."""
import copy

import pytest
import torch
from PIL import Image

from digitfast import Predictor, open_learner, save_learner, train_learner
from digitfast.errors import BadData, BadSetting
from digitfast.evaluation.evaluate import evaluate_learner, predict_files


def test_evaluate_agrees_with_fastai(trained, digits):
    with trained.no_bar(), trained.no_logging():
        loss, accuracy = trained.validate()
    for folder in (None, digits / "testing"):
        evidence = evaluate_learner(trained, folder)
        assert evidence.n == 120
        assert evidence.confusion.sum(1).tolist() == [12] * 10
        assert evidence.accuracy == pytest.approx(accuracy)
        assert evidence.loss == pytest.approx(loss, rel=1e-4)


def test_unknown_classes_are_named(trained, copy_of_digits):
    (copy_of_digits / "testing/3").rename(copy_of_digits / "testing/three")
    with pytest.raises(BadData, match="three"):
        evaluate_learner(trained, copy_of_digits / "testing")


def test_predict_files_with_a_learner_of_plain_fastai(digits):
    from fastai.vision.all import ImageDataLoaders, resnet18, vision_learner
    dls = ImageDataLoaders.from_folder(digits, train="training", valid="testing", bs=8,
                                       num_workers=0)  # 3 channels
    learn = vision_learner(dls, resnet18, pretrained=False)
    assert predict_files(learn, [digits / "testing/4/30.png"])[0]["digit"] in dls.vocab


def test_a_network_that_has_diverged_gives_no_answer(trained, digits):
    diverged = copy.deepcopy(trained)
    with torch.no_grad():
        next(diverged.model.parameters()).fill_(torch.nan)
    with pytest.raises(BadData, match="diverged"):
        predict_files(diverged, [digits / "testing/4/30.png"])


def test_predict_files_answers_as_the_learner_does(trained, digits):
    files = sorted((digits / "testing").glob("*/3*.png"))
    answers = predict_files(trained, files)
    with trained.no_bar():
        for file, answer in zip(files[::20], answers[::20], strict=True):
            label, _, expected = trained.predict(file)
            probabilities = list(answer["probabilities"].values())
            assert answer["digit"] == label
            assert probabilities == pytest.approx(expected.tolist(), abs=1e-5)


def test_predict_files_answers_all(trained, digits, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    absent = tmp_path / "absent.png"
    images = [digits / "testing/4/30.png", bad, digits / "testing/1", absent]
    answers = predict_files(trained, images)
    assert len(answers) == 15
    assert answers[0]["digit"] == "4"
    assert sum(answers[0]["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert "digit" not in answers[1] and str(bad) in answers[1]["error"]
    in_folder = sorted(str(file) for file in (digits / "testing/1").iterdir())
    assert [answer["file"] for answer in answers[2:14]] == in_folder
    assert "absent.png" in answers[-1]["error"]


def test_an_empty_folder_is_reported(trained, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds no pictures" in predict_files(trained, [tmp_path / "empty"])[0]["error"]


def test_the_test_images_of_a_folder_with_splits_are_evaluated(trained, digits):
    assert evaluate_learner(trained, digits).n == 120


def test_a_loaded_learner_has_no_images(trained, tmp_path):
    save_learner(trained, tmp_path / "it.pkl")
    loaded = open_learner(tmp_path / "it.pkl", trust=True)
    with pytest.raises(BadData, match="name a folder of images"):
        evaluate_learner(loaded)
    with pytest.raises(BadSetting, match="no batch of training images"):
        train_learner(loaded, 1)


def test_only_a_learner_is_taken(digits):
    for function, args in ((evaluate_learner, ()), (predict_files, ([digits],))):
        with pytest.raises(BadSetting, match="learn must be a Learner, not Predictor"):
            function(Predictor.packed(), *args)


def test_predict_files_takes_no_pictures_in_memory(trained):
    with pytest.raises(BadSetting,
                       match="paths of files and folders, not Image; read_digit takes"):
        predict_files(trained, [Image.new("L", (28, 28))])
