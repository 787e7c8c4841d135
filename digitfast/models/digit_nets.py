"""The networks written for digitfast."""
import torch
import torch.nn.functional as F
from torch import nn

from digitfast.errors import BadSetting


def _layers(*sizes: int) -> list[nn.Module]:
    "Return linear layers of these sizes with ReLUs between them, for flattened images."
    layers: list[nn.Module] = [nn.Flatten()]
    for n_in, n_out in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return layers[:-1]


def simple_net(
    n_in: int = 784,  # pixels of an image, over all channels
    n_out: int = 10,  # classes
) -> nn.Sequential:
    """Return the article's simple net, 784-100-30-10 with ReLU, which gives logits.

    Shapes: `[batch, channels, height, width]` floats in 0..1 to `[batch, n_out]`.
    Source: "Introduction to Deep Learning and SGD", after chapter 4 of the fastai book.
    """
    return nn.Sequential(*_layers(n_in, 100, 30, n_out))


def article_net(
    n_in: int = 784,  # pixels of an image, over all channels
    n_out: int = 10,  # classes
) -> nn.Sequential:
    """Return the article's first network, 784-128-64-10 with ReLU.

    It gives log-probabilities, for `NLLLossFlat`.

    Shapes: `[batch, channels, height, width]` floats in 0..1 to `[batch, n_out]`.
    Source: "Introduction to Deep Learning and SGD", its PyTorch part.
    """
    return nn.Sequential(*_layers(n_in, 128, 64, n_out), nn.LogSoftmax(dim=1))


def digit_net(
    n_in: int = 1,  # channels of an image
    n_out: int = 10,  # classes
    size: int = 28,  # side of the images, in pixels, 7 or more
) -> nn.Sequential:
    """Return a small convolutional net that learns digits in one short epoch; it gives logits.

    It has 46,714 weights for MNIST. The first convolution has stride 2, so that all others work on
    a fifth of the pixels. The sizes were chosen on held-out training images.

    Shapes: `[batch, n_in, size, size]` floats in 0..1 to `[batch, n_out]`.
    Raises: `BadSetting` for a smaller size.
    """
    if size < 7:
        raise BadSetting(f"size must be at least 7 for digitnet (7×7 pixels), not {size}; "
                         "try size=28")
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
    """Return a net of six convolutions, slower and more accurate than `digit_net`; it gives logits.

    It has 203,626 weights for MNIST, and works at full size first. It is made for several epochs of
    augmented images (`RandomAffine`) and a `WeightAverage`.

    Shapes: `[batch, n_in, size, size]` floats in 0..1 to `[batch, n_out]`.
    Raises: `BadSetting` for a smaller size.
    """
    if size < 13:
        raise BadSetting(f"size must be at least 13 for digitnet_deep (13×13 pixels), not {size}; "
                         "try size=28")
    return nn.Sequential(
        *_block(n_in, 32, kernel_size=3), *_block(32, 32, kernel_size=3),
        *_block(32, 32, kernel_size=5, stride=2, padding=2),
        *_block(32, 64, kernel_size=3), *_block(64, 64, kernel_size=3),
        *_block(64, 64, kernel_size=5, stride=2, padding=2),
        nn.Flatten(), nn.Linear(64 * ((size - 9) // 4)**2, n_out))


def _block(channels_in: int, channels: int, **kwargs) -> list[nn.Module]:
    "Return a convolution with batch norm and ReLU."
    return [nn.Conv2d(channels_in, channels, bias=False, **kwargs),
            nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]


def with_no_digit(
    logits: torch.Tensor,  # `[n, classes]`, of a network that was trained with `NonDigits`
) -> torch.Tensor:  # `[n, classes + 1]`, the last one for "no digit"
    """Return the logits with one more for "no digit", which is always 0.

    A softmax does not change when all logits move together, so one can be fixed without loss.
    """
    return F.pad(logits, (0, 1))
