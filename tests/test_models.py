import pytest
import torch
from fastai.losses import CrossEntropyLossFlat
from fastai.torch_core import TensorBase, TensorCategory
from torch import nn

from digitfast import BadSetting
from digitfast.models.digit_nets import article_net, digit_net, digit_net_deep, simple_net
from digitfast.training.losses import NLLLossFlat, PlainCrossEntropyLoss


def shapes(net):
    return [tuple(layer.weight.shape[::-1]) for layer in net if isinstance(layer, nn.Linear)]


def test_the_articles_networks():
    assert shapes(simple_net()) == [(784, 100), (100, 30), (30, 10)]
    assert [type(layer) for layer in simple_net()] == [
        nn.Flatten, nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    assert shapes(article_net()) == [(784, 128), (128, 64), (64, 10)]
    assert sum(p.numel() for p in article_net().parameters()) == 109_386
    assert torch.allclose(article_net()(torch.rand(4, 1, 28, 28)).exp().sum(1), torch.ones(4))
    assert simple_net(16, 2)(torch.rand(3, 1, 4, 4)).shape == (3, 2)


def test_digit_net():
    net = digit_net()
    assert sum(p.numel() for p in net.parameters()) == 46_714
    assert net(torch.rand(4, 1, 28, 28)).shape == (4, 10)
    assert net[:-2](torch.rand(4, 1, 28, 28)).shape == (4, 64, 6, 6)
    for size in (7, 8, 29, 64):
        assert digit_net(3, 2, size)(torch.rand(4, 3, size, size)).shape == (4, 2)
    with pytest.raises(BadSetting, match="at least 7 .*7×7.*not 6; try size=28"):
        digit_net(size=6)


def test_digit_net_deep():
    net = digit_net_deep()
    assert sum(p.numel() for p in net.parameters()) == 203_626
    for size in (13, 14, 15, 16, 28, 63):
        assert digit_net_deep(3, 2, size)(torch.rand(4, 3, size, size)).shape == (4, 2)
    with pytest.raises(BadSetting, match="at least 13 .*13×13.*not 12; try size=28"):
        digit_net_deep(size=12)


def test_nll_of_log_softmax_is_cross_entropy():
    logits = torch.randn(8, 10)
    labels = torch.randint(10, (8,))
    log_probabilities = logits.log_softmax(1)
    nll = NLLLossFlat()
    cross_entropy = CrossEntropyLossFlat()
    assert torch.allclose(nll(log_probabilities, labels), cross_entropy(logits, labels))
    assert torch.allclose(nll.activation(log_probabilities), cross_entropy.activation(logits))
    assert torch.equal(nll.decodes(log_probabilities), cross_entropy.decodes(logits))


def test_losses_are_plain_tensors():
    "They equal fastai's for any type of tensor, and return a plain one."
    x = torch.randn(8, 10)
    y = torch.randint(10, (8,))
    expected = CrossEntropyLossFlat()(x, y)
    for inputs in ((x, y), (TensorBase(x), TensorCategory(y))):
        loss = PlainCrossEntropyLoss()(*inputs)
        assert type(loss) is torch.Tensor and torch.equal(loss, expected)
        assert type(NLLLossFlat()(*inputs)) is torch.Tensor
    assert PlainCrossEntropyLoss(reduction="none")(x, y).shape == (8,)
