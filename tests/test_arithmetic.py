import copy
import itertools
import pickle

import pytest
import torch
from torch import nn

from digitfast import BadSetting
from digitfast.models.digit_nets import digit_net, simple_net
from digitfast.training.precision import (
    _cells,
    choose_precision,
    low_precision_training,
    small_convolutions_as_products,
    training_arithmetic,
)

CPU = torch.device("cpu")


def grads(conv, x, g):
    return torch.autograd.grad(conv(x), (x, conv.weight, conv.bias), g)


def test_products_equal_convolutions():
    "In double precision, small convolutions give torch's own results and gradients."
    products = 0
    for h, w, k, stride, padding, dilation in itertools.product(
            (1, 2, 3), (1, 2, 3), (1, 2, 3, 5), (1, 2, 3), (0, 1, 2), (1, 2)):
        if min(h, w) + 2 * padding < dilation * (k - 1) + 1:
            continue
        conv = nn.Conv2d(3, 4, k, stride=stride, padding=padding, dilation=dilation).double()
        x = torch.randn(2, 3, h, w, dtype=torch.double, requires_grad=True)
        out = conv(x)
        g = torch.randn_like(out)
        expected = [out, *grads(conv, x, g)]
        with small_convolutions_as_products(conv):
            assert "forward" in vars(conv)
            found = [conv(x), *grads(conv, x, g)]
        assert "forward" not in vars(conv)
        for a, b in zip(expected, found, strict=True):
            assert a.shape == b.shape and torch.allclose(a, b)
        pairs = ((k, k), (stride, stride), (padding, padding), (dilation, dilation))
        if _cells((h, w), *pairs) is not None:
            products += 1
    assert products > 100


def test_which_convolutions_become_products(monkeypatch):
    "Those of resnet18's last stages: 1×1 and 2×2 pixels, but not 4×4."
    from torchvision.models import resnet18
    shapes = []
    linear = nn.functional.linear

    def noted(x, *args):
        shapes.append(tuple(x.shape))
        return linear(x, *args)
    monkeypatch.setattr(nn.functional, "linear", noted)
    model = resnet18(num_classes=10).eval()
    with small_convolutions_as_products(model):
        model(torch.zeros(1, 3, 28, 28))
    # from 2×2 pixels to 2×2; to 1×1, with its shortcut; from 1×1 to 1×1; the last layer
    assert len(shapes) == 3 + 2 + 3 + 1
    for conv in (nn.Conv2d(4, 4, 3, padding=1, groups=2),
                 nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
                 nn.Conv2d(4, 4, 3, padding="same")):
        with small_convolutions_as_products(conv):
            assert "forward" not in vars(conv)


def test_bf16_while_training_and_fp32_otherwise():
    model = digit_net()
    x = torch.rand(4, 1, 28, 28)
    state = copy.deepcopy(model.state_dict())
    expected = model.train()(x)
    model.load_state_dict(state)  # batch norm has counted
    with low_precision_training(model, CPU, torch.bfloat16):
        out = model.train()(x)
        assert out.dtype == torch.float32 and not torch.equal(out, expected)
        assert torch.allclose(out, expected, atol=0.1)
        assert not torch.is_autocast_enabled("cpu")
        out.sum().backward()
        assert all(p.grad.dtype == p.dtype == torch.float32 for p in model.parameters())
        inside = model.eval()(x)
    assert torch.equal(inside, model.eval()(x)) and "forward" not in vars(model)


def test_a_forward_of_its_own_comes_back():
    "A compiled model has one; it may also return more than one tensor."
    model = digit_net()

    def own(x):
        return nn.Sequential.forward(model, x), {"labels": torch.zeros(1, dtype=torch.long)}
    model.forward = own
    with low_precision_training(model, CPU, torch.bfloat16):
        out, more = model(torch.rand(4, 1, 28, 28))
        assert out.dtype == torch.float32 and more["labels"].dtype == torch.long
    assert model.forward is own


def test_products_on_the_cpu_only(monkeypatch):
    "Also if a network moves to a GPU after its training has begun."
    monkeypatch.setattr(nn.functional, "linear", lambda *args: pytest.fail("a product"))
    conv = nn.Conv2d(3, 4, 3, padding=1)
    with small_convolutions_as_products(conv):
        assert conv.to("meta")(torch.zeros(2, 3, 1, 1, device="meta")).shape == (2, 4, 1, 1)
        conv.to_empty(device="cpu")
        assert conv(torch.zeros(3, 5, 5)).shape == (4, 5, 5)  # one image, no batch


def test_contexts_end_with_an_error():
    model = digit_net()
    with pytest.raises(RuntimeError), training_arithmetic(model, CPU, "bf16"):
        model(torch.zeros(1, 2, 28, 28))
    assert not torch.is_autocast_enabled("cpu")
    assert not any("forward" in vars(module) for module in model.modules())


def test_choose_precision(monkeypatch):
    has_amx = {"amx_bf16": True, "amx_tile": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has_amx, raising=False)
    assert choose_precision("auto", digit_net(), CPU) == "bf16"
    assert choose_precision("auto", simple_net(), CPU) == "fp32"
    assert choose_precision("fp32", digit_net(), CPU) == "fp32"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True},
                        raising=False)
    assert choose_precision("auto", digit_net(), CPU) == "fp32"
    assert choose_precision("bf16", digit_net(), CPU) == "bf16"
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert choose_precision("auto", digit_net(), CPU) == "fp32"
    with pytest.raises(BadSetting, match="fp16.*GPU"):
        choose_precision("fp16", digit_net(), CPU)


def pickled(model):
    return pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_a_copy_made_in_training_is_a_network_of_its_own(copied):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, padding=1), torch.nn.Flatten(),
                                torch.nn.Linear(8, 3))
    images = torch.rand(4, 1, 2, 2)
    with training_arithmetic(model, torch.device("cpu"), "bf16"):
        copy_of_model = copied(model).eval()
        before = copy_of_model(images)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        assert torch.equal(copy_of_model(images), before)
        assert copy_of_model.train()(images).dtype == torch.float32
    assert model(images).abs().max() == 0 and "forward" not in vars(model)


def test_a_traced_network_trains_in_fp32():
    traced = torch.jit.trace(torch.nn.Conv2d(1, 2, 3), torch.rand(1, 1, 4, 4))
    assert choose_precision("auto", traced, torch.device("cpu")) == "fp32"
    with pytest.raises(BadSetting, match="precision='fp32'"), training_arithmetic(
            traced, torch.device("cpu"), "bf16"):
        pass
