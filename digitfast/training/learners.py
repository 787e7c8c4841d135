"""`Learner` factories: network, loss, metric and optimiser in one sentence."""
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import fastai.vision.all  # noqa: F401 - gives Learner fit_one_cycle, lr_find, show_results, tta, to_fp16 and no_bar
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
from digitfast.models.architectures import find_architecture
from digitfast.models.digit_nets import article_net, digit_net, digit_net_deep, simple_net
from digitfast.registry import ARCHITECTURES, resolve
from digitfast.training.lean import ChannelsLastImages, LeanLearner, lean
from digitfast.training.losses import NLLLossFlat, PlainCrossEntropyLoss
from digitfast.training.state import random_state_kept

ARTICLE_SGD = partial(SGD, mom=0.8)


@delegates(Learner.__init__, but=["model"])
def simple_learner(
    dls: DataLoaders,  # from `digit_dls`, or any of images that are all of one size
    **kwargs,  # of fastai's `Learner`: loss_func, metrics, opt_func, lr, wd, cbs, path, ...
) -> Learner:
    "A `Learner` of the article's simple net (784-100-30-10, ReLU) with cross-entropy and accuracy."
    return LeanLearner(dls, simple_net(_image_shape(dls).numel(), _class_count(dls)), **_judged(dls, kwargs))


@delegates(Learner.__init__, but=["model"])
def digitnet_learner(
    dls: DataLoaders,  # from `digit_dls`
    **kwargs,  # of fastai's `Learner`: loss_func, metrics, opt_func, lr, wd, cbs, path, ...
) -> Learner:
    "A `Learner` of digitfast's own small convolutional net with cross-entropy and accuracy."
    channels, size, _ = _image_shape(dls)
    return LeanLearner(dls, digit_net(channels, _class_count(dls), size), **_channels_last(_judged(dls, kwargs)))


@delegates(Learner.__init__, but=["model"])
def digitnet_deep_learner(
    dls: DataLoaders,  # from `digit_dls`, with `RandomAffine` among its `batch_tfms`
    **kwargs,  # of fastai's `Learner`: loss_func, metrics, opt_func, lr, wd, cbs, path, ...
) -> Learner:
    "A `Learner` of digitfast's deeper convolutional net with cross-entropy and accuracy."
    channels, size, _ = _image_shape(dls)
    return LeanLearner(dls, digit_net_deep(channels, _class_count(dls), size), **_channels_last(_judged(dls, kwargs)))


@delegates(Learner.__init__, but=["model"])
def article_learner(
    dls: DataLoaders,  # from `digit_dls`; the article's batch size is bs=128
    opt_func: Callable = ARTICLE_SGD,  # optimiser
    lr: float = 0.005,  # learning rate that `fit` takes when it is given none
    **kwargs,  # of fastai's `Learner`: loss_func, metrics, wd, cbs, path, ...
) -> Learner:
    """A `Learner` of the article's first network (784-128-64-10, log-softmax) with its loss, optimiser and rate.

    With another loss, which takes logits, the network ends before the log-softmax.
    """
    net = article_net(_image_shape(dls).numel(), _class_count(dls))
    kwargs = _judged(dls, kwargs, NLLLossFlat)
    if not isinstance(kwargs["loss_func"], (NLLLossFlat, nn.NLLLoss)):
        net = net[:-1]
    return LeanLearner(dls, net, opt_func=opt_func, lr=lr, **kwargs)


@delegates(Learner.__init__, but=["model"])
def digit_learner(
    dls: DataLoaders,  # from `digit_dls`
    arch: str | Callable = "digitnet",  # a name: ours, torchvision's, fastai's, timm's; or what `vision_learner` takes
    **kwargs,  # of fastai's `Learner`, and of its `vision_learner` for the others: cut, custom_head, ps, ...
) -> Learner:
    """A `Learner` of an untrained network of architecture `arch`, with cross-entropy and accuracy.

    "digitnet", "digitnet_deep", "simple" and "article" are those of the `Learner` factories here; everything else goes
    through fastai's `vision_learner`, with as many input channels as the images have (one) and one output a class.

    Raises: `UnknownName` for an unknown architecture, `BadSetting` for one that cannot take images of this size.
    """
    entry = ARCHITECTURES.get(arch, "") if isinstance(arch, str) else ""
    if entry.startswith("digitfast."):
        return resolve(entry)(dls, **kwargs)
    build = find_architecture(arch) if isinstance(arch, str) else arch
    shape = _image_shape(dls)
    path = Path(kwargs.pop("path", None) or ".")
    if isinstance(arch, str) and arch in ARCHITECTURES:
        kwargs = _channels_last(kwargs)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*(pretrained|weight enum).*")  # how fastai calls torchvision
            learn = lean(vision_learner(dls, build, path=path, **{
                "n_in": shape[0], "n_out": _class_count(dls), "pretrained": False, **_judged(dls, kwargs)}))
        _try_out(learn.model, shape)
    except TypeError as e:
        raise BadSetting(f"digit_learner: {e}; allowed are the arguments of fastai's Learner and vision_learner") from e
    except (RuntimeError, ValueError, AssertionError, StopIteration, OSError) as e:
        name = arch if isinstance(arch, str) else getattr(arch, "__name__", arch)
        if kwargs.get("pretrained"):
            raise BadSetting(f"pretrained weights of {name} could not be had ({e}); leave out pretrained=True") from e
        raise BadSetting(f"{name} cannot take images of {shape[0]} channel and {shape[1]}×{shape[2]} pixels ({e}); try "
                         f"a larger size, such as size=64, or another of: {', '.join(ARCHITECTURES)}") from e
    if getattr(dls.train, "bs", None) == 1 and any(isinstance(m, _BatchNorm) for m in learn.model.modules()):
        raise BadSetting(f"bs=1: {arch} has batch norm, which needs at least 2 images per batch")
    return learn


def _class_count(dls: DataLoaders) -> int:
    "How many classes `dls` has; where it does not say so, as many as its training labels need."
    known = get_c(dls)
    if known:
        return known
    with random_state_kept():
        return 1 + max(int(labels.max()) for *_, labels in dls.train)


def _judged(
    dls: DataLoaders,
    kwargs: dict,  # of a `Learner`
    loss: Callable = PlainCrossEntropyLoss,  # for images of one class each
) -> dict:
    "`kwargs` with a loss and metrics, where they have none: those of classes, or what labels of another kind ask for."
    wanted = getattr(getattr(dls, "train_ds", None), "loss_func", None)
    of_classes = wanted is None or isinstance(wanted, CrossEntropyLossFlat)
    return {"loss_func": loss() if of_classes else wanted, "metrics": accuracy if of_classes else None, **kwargs}


def _channels_last(kwargs: dict) -> dict:
    "`kwargs` of a `Learner` whose convolutions get their images as they are fastest."
    return {**kwargs, "cbs": [*listify(kwargs.get("cbs")), ChannelsLastImages()]}


def _image_shape(dls: DataLoaders) -> torch.Size:
    "Channels, height and width of the images of `dls`."
    with random_state_kept():  # a batch is drawn, and perhaps changed at random
        images = (dls.one_batch() if hasattr(dls.train, "one_batch") else next(iter(dls.train)))[0]
    if images.dim() != 4:
        raise BadSetting(f"batches of shape {list(images.shape)}: images must be [batch, channels, height, width]")
    return images.shape[1:]


def _try_out(model: torch.nn.Module, shape: torch.Size) -> None:
    "Give `model` two empty images of `shape`: some networks shrink an image more often than 28 pixels allow."
    training = model.training
    with torch.no_grad():
        model.eval()(torch.zeros(2, *shape, device=next(model.parameters()).device))
    model.train(training)
