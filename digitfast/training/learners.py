"""`Learner` factories: network, loss, metric and optimiser in one call."""
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import fastai.vision.all  # noqa: F401 - gives Learner fit_one_cycle, lr_find, tta, to_fp16 and so on
import torch
from fastai.data.core import DataLoaders
from fastai.data.transforms import get_c
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.optimizer import SGD
from fastai.vision.learner import vision_learner
from fastcore.basics import listify
from fastcore.meta import delegates
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from digitfast.errors import BadSetting
from digitfast.models.architectures import find_architecture, find_ours
from digitfast.registry import ARCHITECTURES
from digitfast.training.lean import ChannelsLastImages, LeanLearner, lean
from digitfast.training.losses import NLLLossFlat, PlainCrossEntropyLoss
from digitfast.training.state import random_state_kept

ARTICLE_SGD = partial(SGD, mom=0.8)


@delegates(Learner.__init__, but=["model"])
def simple_learner(
    dls: DataLoaders,  # from `digit_dls`, or any of images that are all of one size
    **kwargs,  # of fastai's `Learner`: loss_func, metrics, opt_func, lr, wd, cbs, path, ...
) -> Learner:
    "Return a `Learner` of the article's simple net (784-100-30-10, ReLU), cross-entropy, accuracy."
    return _our_learner(dls, "simple", **kwargs)


@delegates(Learner.__init__, but=["model"])
def digitnet_learner(
    dls: DataLoaders,  # from `digit_dls`
    **kwargs,  # of fastai's `Learner`: loss_func, metrics, opt_func, lr, wd, cbs, path, ...
) -> Learner:
    "Return a `Learner` of digitfast's small convolutional net with cross-entropy and accuracy."
    return _our_learner(dls, "digitnet", **kwargs)


@delegates(Learner.__init__, but=["model"])
def digitnet_deep_learner(
    dls: DataLoaders,  # from `digit_dls`, with `RandomAffine` among its `batch_tfms`
    **kwargs,  # of fastai's `Learner`: loss_func, metrics, opt_func, lr, wd, cbs, path, ...
) -> Learner:
    "Return a `Learner` of digitfast's deeper convolutional net with cross-entropy and accuracy."
    return _our_learner(dls, "digitnet_deep", **kwargs)


@delegates(Learner.__init__, but=["model"])
def article_learner(
    dls: DataLoaders,  # from `digit_dls`; the article's batch size is bs=128
    opt_func: Callable = ARTICLE_SGD,  # optimiser
    lr: float = 0.005,  # learning rate of `fit` unless it is given one
    **kwargs,  # of fastai's `Learner`: loss_func, metrics, wd, cbs, path, ...
) -> Learner:
    """Return a `Learner` of the article's first network with its loss, optimiser and learning rate.

    The network is 784-128-64-10 with a log-softmax, which is left out for a loss that takes logits.
    """
    return _our_learner(dls, "article", opt_func=opt_func, lr=lr, **kwargs)


@delegates(Learner.__init__, but=["model"])
def digit_learner(
    dls: DataLoaders,  # from `digit_dls`
    # a name: ours, torchvision's, timm's; a builder; or a network of one's own
    arch: str | Callable | nn.Module = "digitnet",
    **kwargs,  # of fastai's `Learner`; for networks not ours also of its `vision_learner`
) -> Learner:
    """Return a `Learner` of a network, with cross-entropy and accuracy.

    "digitnet", "digitnet_deep", "simple" and "article" are digitfast's own networks. fastai's
    `vision_learner` builds all others, with as many input channels as the images have (one) and
    one output per class.

    Raises: `UnknownName` for an unknown architecture, `BadSetting` for one that cannot take images
    of this size.
    """
    if isinstance(arch, nn.Module):
        return _learner_of(dls, arch, **kwargs)
    if find_ours(arch):
        default = {"opt_func": ARTICLE_SGD, "lr": 0.005} if arch == "article" else {}
        return _our_learner(dls, arch, **{**default, **kwargs})
    build = find_architecture(arch) if isinstance(arch, str) else arch
    shape = _image_shape(dls)
    path = Path(kwargs.pop("path", None) or ".")
    own_part = {"cut", "custom_head"} & kwargs.keys()  # which need not take any memory layout
    if isinstance(arch, str) and arch in ARCHITECTURES and not own_part:
        kwargs = _channels_last(kwargs)
    try:
        with warnings.catch_warnings():
            # of the way in which fastai calls torchvision
            warnings.filterwarnings("ignore", message=".*(pretrained|weight enum).*")
            learn = lean(vision_learner(dls, build, path=path, **{
                "n_in": shape[0], "n_out": _class_count(dls), "pretrained": False,
                **_with_loss(dls, kwargs)}))
        _try_out(learn.model, shape)
    except TypeError as e:
        raise BadSetting(f"digit_learner: {e}; allowed are the arguments of fastai's Learner and "
                         "vision_learner") from e
    except (RuntimeError, ValueError, AssertionError, StopIteration, OSError) as e:
        name = arch if isinstance(arch, str) else getattr(arch, "__name__", arch)
        if kwargs.get("pretrained"):
            raise BadSetting(f"the pretrained weights of {name} could not be loaded ({e}); "
                             "leave out pretrained=True") from e
        raise BadSetting(f"{name} cannot take images of {shape[0]} channel and "
                         f"{shape[1]}×{shape[2]} pixels ({e}); try a larger size, such as "
                         "size=64, or another of: "
                         f"{', '.join(ARCHITECTURES)}") from e
    has_batch_norm = any(isinstance(module, _BatchNorm) for module in learn.model.modules())
    if getattr(dls.train, "bs", None) == 1 and has_batch_norm:
        raise BadSetting(f"{arch} has batch norm: bs must be at least 2, not 1")
    return learn


def _learner_of(
    dls: DataLoaders,
    network: nn.Module,
    **kwargs,  # of fastai's `Learner`
) -> LeanLearner:
    "Return a `Learner` of a given network, which must give a logit per class."
    shape = _image_shape(dls)
    classes = _class_count(dls)
    learn = LeanLearner(dls, network, **_with_loss(dls, kwargs))
    name = type(network).__name__
    try:
        found = list(_try_out(learn.model, shape).shape)
    except Exception as e:  # of the user's code
        raise BadSetting(f"{name} cannot take a batch of {list(shape)} images ({e})") from e
    if found != [2, classes]:
        raise BadSetting(f"{name} gives {found} for 2 images; it must give [2, {classes}], a logit "
                         "for each class")
    return learn


def _our_learner(
    dls: DataLoaders,
    arch: str,  # name of one of digitfast's own
    **kwargs,  # of fastai's `Learner`
) -> LeanLearner:
    "Return a `Learner` of one of digitfast's own networks."
    network = find_ours(arch)(_image_shape(dls), _class_count(dls))
    takes_logits = not isinstance(network[-1], nn.LogSoftmax)
    kwargs = _with_loss(dls, kwargs, PlainCrossEntropyLoss if takes_logits else NLLLossFlat)
    if not takes_logits and not _takes_log_probabilities(kwargs["loss_func"]):
        network = network[:-1]
    if any(isinstance(module, nn.Conv2d) for module in network):
        kwargs = _channels_last(kwargs)
    return LeanLearner(dls, network, **kwargs)


def _takes_log_probabilities(loss: Callable) -> bool:
    "Return whether `loss` is torch's `NLLLoss` or `nll_loss`, perhaps within one of fastai's."
    func = getattr(loss, "func", loss)  # of fastai's `BaseLoss`, or of a `partial`
    return isinstance(func, nn.NLLLoss) or func in (nn.functional.nll_loss, nn.NLLLoss)


def _class_count(dls: DataLoaders) -> int:
    "Return the number of classes: what `dls` says, or what its training labels need."
    known = get_c(dls)
    if known:
        return known
    with random_state_kept():
        return 1 + max(int(labels.max()) for *_, labels in dls.train)


def _with_loss(
    dls: DataLoaders,
    kwargs: dict,  # of a `Learner`
    loss: Callable = PlainCrossEntropyLoss,  # for images of one class each
) -> dict:
    "Return `kwargs` with a loss and metrics that fit the labels, unless they have their own."
    of_labels = getattr(getattr(dls, "train_ds", None), "loss_func", None)
    one_class = of_labels is None or isinstance(of_labels, CrossEntropyLossFlat)
    return {"loss_func": loss() if one_class else of_labels,
            "metrics": accuracy if one_class else None, **kwargs}


def _channels_last(kwargs: dict) -> dict:
    "Return `kwargs` of a `Learner` with images laid out channels-last, for convolutions."
    return {**kwargs, "cbs": [*listify(kwargs.get("cbs")), ChannelsLastImages()]}


def _image_shape(dls: DataLoaders) -> torch.Size:
    "Return channels, height and width of the images of `dls`."
    with random_state_kept():  # a batch is drawn, and perhaps augmented
        batch = dls.one_batch() if hasattr(dls.train, "one_batch") else next(iter(dls.train))
    images = batch[0]
    if images.dim() != 4:
        raise BadSetting(f"batches of shape {list(images.shape)}: images must be "
                         "[batch, channels, height, width]")
    return images.shape[1:]


def _try_out(model: torch.nn.Module, shape: torch.Size) -> torch.Tensor:
    """Return what `model` gives for two empty images.

    Some networks halve an image more often than 28 pixels allow, and raise here.
    """
    training = model.training
    with torch.no_grad():
        answer = model.eval()(torch.zeros(2, *shape, device=next(model.parameters()).device))
    model.train(training)
    return answer
