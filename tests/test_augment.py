import math

import pytest
import torch
from fastai.vision.core import TensorImageBW

from digitfast import BadSetting, digit_dls
from digitfast.data import augment
from digitfast.data.augment import RandomAffine, RandomPen


def picture():
    "A simple 7, a bar on top of a leg: no turn by up to 20° makes it its mirror image."
    x = torch.zeros(1, 1, 28, 28)
    x[..., 6:8, 8:20] = x[..., 6:22, 17:19] = 1
    return x


def amounts(transform, monkeypatch, **given):
    "The picture by `transform` with the given ones of its six random amounts, the others 0."
    order = ["turn", "shear", "wide", "high", "right", "down"]
    values = torch.tensor([[given.get(name, 0.0)] for name in order])
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda self, low, high: self.copy_(values))
    return transform.encodes(TensorImageBW(picture())).as_subclass(torch.Tensor)


def centre(x):
    "The centre of mass of the ink, `(row, column)`."
    rows, columns = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    return torch.stack([(x[0, 0] * rows).sum(), (x[0, 0] * columns).sum()]) / x.sum()


def test_nothing_by_nothing(monkeypatch):
    assert torch.allclose(amounts(RandomAffine(), monkeypatch), picture(), atol=1e-5)


def test_shift_is_a_tenth_of_the_side(monkeypatch):
    moved = centre(amounts(RandomAffine(), monkeypatch, right=1.0)) - centre(picture())
    assert moved[0].abs() < 0.01
    assert abs(moved[1].abs() - 2.8) < 0.01
    moved = centre(amounts(RandomAffine(0.5), monkeypatch, down=1.0)) - centre(picture())
    assert moved[1].abs() < 0.01
    assert abs(moved[0].abs() - 1.4) < 0.01


def test_zoom_changes_the_ink_by_its_part(monkeypatch):
    ink = picture().sum().item()
    wider = amounts(RandomAffine(), monkeypatch, wide=1.0)
    assert wider.sum().item() == pytest.approx(1.15 * ink, rel=0.05)
    lower = amounts(RandomAffine(), monkeypatch, high=-1.0)
    assert lower.sum().item() == pytest.approx(0.85 * ink, rel=0.05)


def test_shear_slants_what_stands(monkeypatch):
    sheared = amounts(RandomAffine(), monkeypatch, shear=1.0)
    top, foot = (sheared[0, 0, row].nonzero().float().max() for row in (8, 20))
    assert abs(abs(top - foot) - 12 * math.tan(math.radians(15))) < 1
    assert abs(sheared.sum() - picture().sum()) < 2


def test_turn_is_a_rotation(monkeypatch):
    "The same as torchvision's."
    from torchvision.transforms.functional import InterpolationMode, rotate
    turned = amounts(RandomAffine(), monkeypatch, turn=1.0)
    expected = rotate(picture(), 20.0, InterpolationMode.BILINEAR)
    assert torch.allclose(turned, expected, atol=1e-3)


def test_never_mirrors_and_each_image_by_itself():
    torch.manual_seed(0)
    transform = RandomAffine()
    matrices = transform._matrices(1000, torch.device("cpu"))
    assert (torch.linalg.det(matrices[:, :, :2]) > 0.5).all()
    batch = transform.encodes(TensorImageBW(picture().expand(8, -1, -1, -1)))
    assert type(batch) is TensorImageBW
    assert batch.shape == (8, 1, 28, 28)
    assert len({float(image.sum()) for image in batch}) == 8
    assert batch.min() >= 0
    assert batch.max() <= 1 + 1e-6


@pytest.mark.parametrize("strength", [0, -1.0, 7.0, math.nan])
def test_strengths(strength):
    with pytest.raises(BadSetting, match="strength"):
        RandomAffine(strength)


def test_training_batches_only(digits):
    dls = digit_dls(digits, bs=32, batch_tfms=RandomAffine())
    plain = digit_dls(digits, bs=32)
    assert torch.equal(dls.valid.one_batch()[0], plain.valid.one_batch()[0])
    same_order = {"get_idxs": lambda: list(range(300)), "shuffle": False}
    changed, unchanged = (loaders.train.new(**same_order).one_batch()[0]
                          for loaders in (dls, plain))
    assert changed.shape == unchanged.shape
    assert not torch.allclose(changed, unchanged, atol=0.1)
    files = sorted((digits / "testing/3").iterdir())
    ours, theirs = (loaders.test_dl(files).one_batch()[0] for loaders in (dls, plain))
    assert torch.equal(ours, theirs)


def test_pen_changes_some_images_and_stays_in_range(digits):
    x = picture().repeat(400, 1, 1, 1)
    torch.manual_seed(0)
    y = RandomPen(0.1).encodes(TensorImageBW(x)).as_subclass(torch.Tensor)
    changed = (y - x).abs().amax((1, 2, 3)) > 0.02
    assert y.shape == x.shape
    assert y.min() >= 0
    assert y.max() <= 1
    assert 0.3 < changed.float().mean() < 0.65  # seven changes, each to a tenth
    assert torch.equal(x, picture().repeat(400, 1, 1, 1))  # the given batch is unchanged
    dls = digit_dls(digits, bs=32, device="cpu", batch_tfms=RandomPen(1.0))
    assert torch.equal(dls.valid.one_batch()[0], dls.valid.one_batch()[0])
    with pytest.raises(BadSetting, match="pen must .*not 2"):
        RandomPen(2)


def test_strokes_get_wider_and_narrower(monkeypatch):
    monkeypatch.setattr(augment, "_each", lambda images: torch.ones(len(images), 1, 1, 1))
    x = picture()
    assert augment._widen(x).sum() > 1.5 * x.sum()
    assert augment._narrow(x).sum() < 0.7 * x.sum()
    monkeypatch.setattr(augment, "_each", lambda images: torch.full((len(images), 1, 1, 1), 0.5))
    assert augment._cross_out(x).sum() < x.sum() < augment._underline(x * 0.1).sum() + x.sum()


@pytest.mark.parametrize(("n", "fewer"), [(28, 9), (28, 14), (28, 23), (28, 28), (28, 1), (5, 3)])
def test_averages_are_torchs(n, fewer):
    images = torch.rand(2, 1, n, n)
    matrix = augment._averages(n, fewer, images)
    expected = torch.nn.functional.adaptive_avg_pool2d(images, fewer)
    torch.testing.assert_close(matrix @ images @ matrix.T, expected)
