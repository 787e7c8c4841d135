"""`Learner` factories: network, loss, metric and optimiser in one sentence."""
import warnings
from collections.abc import Callable
from functools import partial

import fastai.vision.all  # noqa: F401 - gives Learner fit_one_cycle, lr_find, show_results, tta, to_fp16 and no_bar
import torch
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.metrics import accuracy
from fastai.optimizer import SGD
from fastai.vision.learner import vision_learner
from fastcore.meta import delegates
from torch.nn.modules.batchnorm import _BatchNorm

from digitfast.errors import BadSetting
from digitfast.lean import LeanLearner, lean
from digitfast.losses import NLLLossFlat, PlainCrossEntropyLoss
from digitfast.models import article_net, digit_net, digit_net_deep, simple_net
from digitfast.networks import find_architecture
from digitfast.registry import ARCHITECTURES, resolve

ARTICLE_SGD = partial(SGD, mom=0.8)


@delegates(Learner.__init__, but=["model", "loss_func", "metrics"])
def simple_learner(
    dls: DataLoaders,  # from `digit_dls`, or any of images that are all of one size
    **kwargs,  # of fastai's `Learner`: opt_func, lr, wd, cbs, path, ...
) -> Learner:
    "A `Learner` of the article's simple net (784-100-30-10, ReLU) with cross-entropy and accuracy."
    net = simple_net(_image_shape(dls).numel(), dls.c)
    return LeanLearner(dls, net, loss_func=PlainCrossEntropyLoss(), metrics=accuracy, **kwargs)


@delegates(Learner.__init__, but=["model", "loss_func", "metrics"])
def digitnet_learner(
    dls: DataLoaders,  # from `digit_dls`
    **kwargs,  # of fastai's `Learner`: opt_func, lr, wd, cbs, path, ...
) -> Learner:
    "A `Learner` of digitfast's own small convolutional net with cross-entropy and accuracy."
    channels, size, _ = _image_shape(dls)
    net = digit_net(channels, dls.c, size)
    return LeanLearner(dls, net, loss_func=PlainCrossEntropyLoss(), metrics=accuracy, **kwargs)


@delegates(Learner.__init__, but=["model", "loss_func", "metrics"])
def digitnet_deep_learner(
    dls: DataLoaders,  # from `digit_dls`, with `RandomAffine` among its `batch_tfms`
    **kwargs,  # of fastai's `Learner`: opt_func, lr, wd, cbs, path, ...
) -> Learner:
    "A `Learner` of digitfast's deeper convolutional net with cross-entropy and accuracy."
    channels, size, _ = _image_shape(dls)
    net = digit_net_deep(channels, dls.c, size)
    return LeanLearner(dls, net, loss_func=PlainCrossEntropyLoss(), metrics=accuracy, **kwargs)


@delegates(Learner.__init__, but=["model", "loss_func", "metrics"])
def article_learner(
    dls: DataLoaders,  # from `digit_dls`; the article's batch size is bs=128
    opt_func: Callable = ARTICLE_SGD,  # optimiser
    lr: float = 0.005,  # learning rate that `fit` takes when it is given none
    **kwargs,  # of fastai's `Learner`: opt_func, lr, wd, cbs, path, ...
) -> Learner:
    "A `Learner` of the article's first network (784-128-64-10, log-softmax) with its loss, optimiser and rate."
    net = article_net(_image_shape(dls).numel(), dls.c)
    return LeanLearner(dls, net, loss_func=NLLLossFlat(), metrics=accuracy, opt_func=opt_func, lr=lr, **kwargs)


@delegates(Learner.__init__, but=["model", "loss_func", "metrics"])
def digit_learner(
    dls: DataLoaders,  # from `digit_dls`
    arch: str | Callable = "digitnet",  # a name: ours, torchvision's, fastai's, timm's; or what `vision_learner` takes
    **kwargs,  # of fastai's `Learner`: opt_func, lr, wd, cbs, path, ...
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
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*(pretrained|weight enum).*")  # how fastai calls torchvision
            learn = lean(vision_learner(dls, build, pretrained=False, n_in=shape[0], metrics=accuracy,
                                        loss_func=PlainCrossEntropyLoss(), **kwargs))
        _try_out(learn.model, shape)
    except (RuntimeError, ValueError, AssertionError, StopIteration) as e:
        name = arch if isinstance(arch, str) else getattr(arch, "__name__", arch)
        raise BadSetting(f"{name} cannot take images of {shape[0]} channel and {shape[1]}×{shape[2]} pixels ({e}); try "
                         f"a larger size, such as size=64, or another of: {', '.join(ARCHITECTURES)}") from e
    if dls.train.bs == 1 and any(isinstance(m, _BatchNorm) for m in learn.model.modules()):
        raise BadSetting(f"bs=1: {arch} has batch norm, which needs at least 2 images a batch")
    return learn


def _image_shape(dls: DataLoaders) -> torch.Size:
    "Channels, height and width of the images of `dls`."
    return dls.one_batch()[0].shape[1:]


def _try_out(model: torch.nn.Module, shape: torch.Size) -> None:
    "Give `model` two empty images of `shape`: some networks shrink an image more often than 28 pixels allow."
    training = model.training
    with torch.no_grad():
        model.eval()(torch.zeros(2, *shape, device=next(model.parameters()).device))
    model.train(training)
