"""Learners by architecture: their recipes, and what a fastai user does with them next."""
import copy
import subprocess
import sys

import pytest
import torch
from fastai.interpret import ClassificationInterpretation
from fastai.learner import Learner, load_learner
from fastai.losses import BaseLoss, CrossEntropyLossFlat
from fastai.vision.models import resnet18

from digitfast import (
    BadSetting,
    NLLLossFlat,
    UnknownName,
    article_learner,
    digit_dls,
    digit_learner,
    digitnet_learner,
    simple_learner,
)


@pytest.fixture(scope="module")
def dls(digits):
    # on the CPU, as a Learner does not move its model before it trains
    return digit_dls(digits, bs=32, num_workers=0, device="cpu")


@pytest.fixture
def quiet(trained):
    with trained.no_bar(), trained.no_logging():
        yield trained


def test_simple_learner(dls):
    learn = simple_learner(dls, lr=0.5)
    assert isinstance(learn, Learner) and learn.lr == 0.5
    assert [metric.name for metric in learn.metrics] == ["accuracy"]
    assert isinstance(learn.loss_func, CrossEntropyLossFlat)
    layers = (784 * 100 + 100, 100 * 30 + 30, 30 * 10 + 10)
    assert sum(p.numel() for p in learn.model.parameters()) == sum(layers)


def test_article_learner_is_the_articles_recipe(dls):
    learn = article_learner(dls)
    learn.create_opt()
    assert learn.opt.hypers[0]["lr"] == 0.005
    assert learn.opt.hypers[0]["mom"] == 0.8
    assert isinstance(learn.loss_func, NLLLossFlat)
    assert isinstance(learn.model[-1], torch.nn.LogSoftmax)


def test_article_learner_steps_like_torch(dls):
    "Compare fastai's SGD with momentum with torch's, one step on each of three batches."
    learn = article_learner(dls)
    net = copy.deepcopy(learn.model)
    learn.create_opt()
    sgd = torch.optim.SGD(net.parameters(), lr=0.005, momentum=0.8)
    for x, y in [dls.one_batch() for _ in range(3)]:
        x = x.as_subclass(torch.Tensor)
        y = y.as_subclass(torch.Tensor)
        for model, opt in ((learn.model, learn.opt), (net, sgd)):
            torch.nn.functional.nll_loss(model(x), y).backward()
            opt.step()
            opt.zero_grad()
    for p, q in zip(learn.model.parameters(), net.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-7)


@pytest.mark.parametrize("arch", [
    "digitnet", "simple", "article", "resnet18", "xresnet18", "squeezenet1_1",
    "mobilenet_v3_small", "xse_resnet18", "resnet10t", resnet18],
    ids=lambda arch: arch if isinstance(arch, str) else arch.__name__)
def test_architectures_by_name(dls, arch):
    learn = digit_learner(dls, arch)
    x, _ = dls.one_batch()
    assert learn.model(x).shape == (32, 10)
    assert all(p.requires_grad for p in learn.model.parameters())
    if arch not in ("simple", "article"):
        assert next(learn.model.parameters()).shape[1] == 1  # one input channel


def test_resnet18_is_fastais_own(dls):
    from fastai.vision.learner import vision_learner
    theirs = vision_learner(dls, resnet18, pretrained=False, n_in=1, normalize=False)
    ours = digit_learner(dls, "resnet18")
    assert str(ours.model) == str(theirs.model)


def test_architectures_that_do_not_work(dls):
    with pytest.raises(UnknownName, match="Did you mean resnet18"):
        digit_learner(dls, "resnet-18")
    for arch in ("alexnet", "vit_b_16"):
        with pytest.raises(BadSetting, match=f"{arch} cannot take images .*28×28.*size=64"):
            digit_learner(dls, arch)
    with pytest.raises(BadSetting, match="resnet18 has batch norm: bs must be at least 2, not 1"):
        digit_learner(digit_dls(dls.path, bs=1), "resnet18")
    with pytest.raises(TypeError, match="metric_s"):
        simple_learner(dls, metric_s=[])


def test_two_classes(copy_of_digits):
    import shutil
    for split in ("training", "testing"):
        for digit in "01245689":
            shutil.rmtree(copy_of_digits / split / digit)
    learn = simple_learner(digit_dls(copy_of_digits, bs=8, num_workers=0))
    assert learn.model[-1].out_features == 2


def test_what_a_fastai_user_does_next(quiet, digits, tmp_path):
    learn = quiet
    file = digits / "testing/4/30.png"
    label, index, probabilities = learn.predict(file)
    assert (label, index) == ("4", 4)
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    _, accuracy = learn.validate()
    assert accuracy > 0.8
    assert learn.tta()[0].shape == (120, 10)
    interpretation = ClassificationInterpretation.from_learner(learn)
    assert interpretation.confusion_matrix().trace() == round(accuracy * 120)
    learn.show_results()
    learn.export(tmp_path / "learner.pkl")
    loaded = load_learner(tmp_path / "learner.pkl")
    assert loaded.predict(file)[0] == "4"
    x, = loaded.dls.test_dl([file]).one_batch()
    expected, = learn.dls.test_dl([file], num_workers=0).one_batch()
    assert torch.equal(x.cpu(), expected.cpu())


def test_a_learner_has_fastais_methods_without_another_import():
    code = ("from digitfast import simple_learner; import digitfast.training.learners; "
            "from fastai.learner import Learner; "
            "methods = ('fit_one_cycle', 'lr_find', 'fine_tune', 'show_results', 'tta', 'to_fp16', "
            "'no_bar', 'export', 'fit_flat_cos'); "
            "print([method for method in methods if not hasattr(Learner, method)])")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code],
                          capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_mixed_precision_and_lr_find(dls, tmp_path):
    learn = simple_learner(dls, path=tmp_path)
    with learn.no_bar(), learn.no_logging():
        assert 1e-6 < learn.lr_find(show_plot=False).valley < 1
        learn.to_fp16().fit_one_cycle(1, 0.01)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("arch", ["digitnet", "simple", "article", "resnet18"])
def test_on_a_gpu(digits, tmp_path, arch):
    learn = digit_learner(digit_dls(digits, bs=32), arch, path=tmp_path)
    assert learn.dls.train.pixels.device.type == "cuda"
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1, 0.01)
        learn.export("learner.pkl")
        loaded = load_learner(tmp_path / "learner.pkl")
        assert loaded.predict(digits / "testing/4/30.png")[2].device.type == "cpu"


def test_lr_find_leaves_no_trace(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    learn = digitnet_learner(digit_dls(digits, bs=32, num_workers=0))
    random_state = torch.get_rng_state()
    weights = {name: t.clone() for name, t in learn.model.state_dict().items()}
    with learn.no_bar():
        learn.lr_find(show_plot=False)
    assert torch.equal(random_state, torch.get_rng_state())
    assert all(torch.equal(t, learn.model.state_dict()[name]) for name, t in weights.items())
    assert not list(tmp_path.iterdir())
    assert not (digits / "models").exists()


def test_lr_find_on_a_trained_network_always_answers(digits):
    learn = digitnet_learner(digit_dls(digits, bs=32, num_workers=0))
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(4, 0.01)
        assert all(0 < learn.lr_find(show_plot=False).valley < 10 for _ in range(3))


def test_dls_keep_one_channel_after_a_vision_learner_that_failed(digits, monkeypatch):
    "`vision_learner` adds ImageNet's statistics to `dls` before it fails on a download."
    from fastai.vision.all import vision_learner
    dls = digit_dls(digits, bs=32, num_workers=0)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *args, **kwargs: 1 / 0)
    with pytest.raises((BadSetting, ZeroDivisionError)):
        vision_learner(dls, resnet18)
    assert dls.one_batch()[0].shape[1] == 1
    assert next(digitnet_learner(dls).model.parameters()).shape[1] == 1


@pytest.mark.parametrize("loss", [
    torch.nn.functional.nll_loss, torch.nn.NLLLoss(), NLLLossFlat(), BaseLoss(torch.nn.NLLLoss)],
    ids=["nll_loss", "NLLLoss", "NLLLossFlat", "BaseLoss"])
def test_article_learner_keeps_its_log_softmax_for_losses_that_take_log_probabilities(dls, loss):
    learn = article_learner(dls, loss_func=loss)
    assert isinstance(learn.model[-1], torch.nn.LogSoftmax)


def test_article_learner_gives_logits_to_other_losses(dls):
    learn = article_learner(dls, loss_func=CrossEntropyLossFlat())
    assert isinstance(learn.model[-1], torch.nn.Linear)
