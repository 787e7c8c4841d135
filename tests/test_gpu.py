"""What the package promises, on a GPU: seeds, callbacks, model files, named devices."""
import pytest
import torch

from digitfast import (
    BadSetting,
    digit_dls,
    digit_learner,
    export_run,
    open_predictor,
    train_learner,
    train_run,
    write_report,
)
from digitfast.runs.folders import MODEL
from digitfast.training.lr_find import find_lr

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]
ALL = {"augment": 0.5, "ema": 0.9, "non_digits": 0.4, "label_smoothing": 0.1}


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    "Avoid those of cuDNN's algorithms that add in another order each time."
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


def train(digits, folder, **settings):
    usual = {"epochs": 3, "bs": 32, "runs": str(folder), **ALL}
    return train_run(str(digits), **{**usual, **settings})


def weights(run):
    from safetensors.torch import load_file
    return torch.cat([t.float().flatten() for _, t in sorted(load_file(run.path / MODEL).items())])


def test_a_seed_gives_the_same_weights(digits, tmp_path):
    first, again, other = (train(digits, tmp_path, seed=seed, epochs=2) for seed in (1, 1, 2))
    assert torch.equal(weights(first), weights(again))
    assert not torch.allclose(weights(first), weights(other))
    assert first.summary["device"]["type"] == "cuda"
    assert first.summary["precision"] == "bf16"


def test_held_out_images_do_not_seed_the_gpu(digits):
    before = torch.cuda.get_rng_state()
    digit_dls(digits, holdout=0.2, seed=5)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_model_files_answer_on_the_cpu(digits, tmp_path):
    pytest.importorskip("onnxruntime")
    run = train(digits, tmp_path, holdout=0.2)
    images = digit_dls(digits, device="cpu").valid.pixels.numpy()
    answers = [open_predictor(str(path)).chances(images)
               for path in (run.path / MODEL, export_run(run.path, tmp_path / "m.onnx"))]
    assert abs(answers[0] - answers[1]).max() < 1e-3
    assert run.summary["calibration"]["temperature"] > 0


def test_report(digits, tmp_path):
    run = train(digits, tmp_path, non_digits=0.0)
    assert "<html" in write_report(run.path).read_text()


def test_lr_find(digits, tmp_path):
    found = find_lr(str(digits), bs=32, plot=tmp_path / "plot.png")
    assert all(1e-7 < lr < 10 for lr in found.values())


def test_devices_by_name(digits):
    gpu = digit_dls(digits, bs=32, device="cuda")
    current = torch.device("cuda", torch.cuda.current_device())
    assert gpu.device == gpu.train.pixels.device == current
    cpu = digit_dls(digits, bs=32, device="cpu")
    for dls in (gpu, cpu):
        learn = train_learner(digit_learner(dls, "digitnet"), 1, 0.01)
        assert next(learn.model.parameters()).device == dls.device
    with pytest.raises(BadSetting, match="cuda:99.*it has cpu, cuda:0"):
        digit_dls(digits, device="cuda:99")
