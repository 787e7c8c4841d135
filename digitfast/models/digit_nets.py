"""Networks that are written here."""
import torch
import torch.nn.functional as F
from torch import nn

from digitfast.errors import BadSetting


def _layers(*sizes: int) -> list[nn.Module]:
    "Linear layers of these sizes with a ReLU between each two, for flattened images."
    layers: list[nn.Module] = [nn.Flatten()]
    for n_in, n_out in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return layers[:-1]


def simple_net(
    n_in: int = 784,  # pixels of an image, over all channels
    n_out: int = 10,  # classes
) -> nn.Sequential:
    """The article's simple net, 784-100-30-10 with ReLU, which gives logits.

    Shapes: `[batch, channels, height, width]` floats in 0..1 to `[batch, n_out]`.
    Source: "Introduction to Deep Learning and SGD", after chapter 4 of the fastai book.
    """
    return nn.Sequential(*_layers(n_in, 100, 30, n_out))


def article_net(
    n_in: int = 784,  # pixels of an image, over all channels
    n_out: int = 10,  # classes
) -> nn.Sequential:
    """The article's first network, 784-128-64-10 with ReLU, which gives log-probabilities (for `NLLLossFlat`).

    Shapes: `[batch, channels, height, width]` floats in 0..1 to `[batch, n_out]`.
    Source: "Introduction to Deep Learning and SGD", its PyTorch part.
    """
    return nn.Sequential(*_layers(n_in, 128, 64, n_out), nn.LogSoftmax(dim=1))


def digit_net(
    n_in: int = 1,  # channels of an image
    n_out: int = 10,  # classes
    size: int = 28,  # side of the images, in pixels, 7 or more
) -> nn.Sequential:
    """A small convolutional net (46,714 weights for MNIST) that learns digits in one short epoch; it gives logits.

    The first convolution has stride 2, so that all others work on a fifth of the pixels. The sizes were chosen on
    held-out training images.

    Shapes: `[batch, n_in, size, size]` floats in 0..1 to `[batch, n_out]`. Raises: `BadSetting` for a smaller size.
    """
    if size < 7:
        raise BadSetting(f"size={size}: digitnet takes images of 7×7 pixels or more, such as size=28")
    return nn.Sequential(
        *_block(n_in, 16, kernel_size=5, stride=2),
        *_block(16, 32, kernel_size=3, padding=1), nn.MaxPool2d(2),
        *_block(32, 64, kernel_size=3, padding=1),
        nn.Flatten(), nn.Linear(64 * ((size - 3) // 4)**2, n_out))


def digit_net_deep(
    n_in: int = 1,  # channels of an image
    n_out: int = 10,  # classes
    size: int = 28,  # side of the images, in pixels, 13 or more
) -> nn.Sequential:
    """Six convolutions (203,626 weights for MNIST), the first at full size: slower than `digit_net`, and better.

    It is made for several epochs of changed images (`RandomAffine`) and a `WeightAverage`. It gives logits.

    Shapes: `[batch, n_in, size, size]` floats in 0..1 to `[batch, n_out]`. Raises: `BadSetting` for a smaller size.
    """
    if size < 13:
        raise BadSetting(f"size={size}: digitnet_deep takes images of 13×13 pixels or more, such as size=28")
    return nn.Sequential(
        *_block(n_in, 32, kernel_size=3), *_block(32, 32, kernel_size=3),
        *_block(32, 32, kernel_size=5, stride=2, padding=2),
        *_block(32, 64, kernel_size=3), *_block(64, 64, kernel_size=3),
        *_block(64, 64, kernel_size=5, stride=2, padding=2),
        nn.Flatten(), nn.Linear(64 * ((size - 9) // 4)**2, n_out))


def _block(channels_in: int, channels: int, **kwargs) -> list[nn.Module]:
    "A convolution with batch norm and ReLU."
    return [nn.Conv2d(channels_in, channels, bias=False, **kwargs), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]


def with_no_digit(
    logits: torch.Tensor,  # `[n, classes]`, of a network that was trained with `NonDigits`
) -> torch.Tensor:  # `[n, classes + 1]`, the last one for "no digit"
    """The logits of the classes and of "no digit", which is always 0: the others say what speaks for them against it.

    A softmax does not change when all logits move together, so one of them can be fixed without loss.
    """
    return F.pad(logits, (0, 1))
