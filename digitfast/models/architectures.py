"""Networks by the name of their architecture. Needs torch; fastai only for its own."""
import warnings
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from torch import nn

from digitfast.errors import UnknownName
from digitfast.models.digit_nets import article_net, digit_net, digit_net_deep, simple_net
from digitfast.registry import ARCHITECTURES, resolve, unknown

# digitfast's own networks, for images of a shape `[channels, height, width]`.

def build_digitnet(shape: Sequence[int], n_out: int) -> nn.Sequential:
    return digit_net(shape[0], n_out, shape[1])


def build_digitnet_deep(shape: Sequence[int], n_out: int) -> nn.Sequential:
    return digit_net_deep(shape[0], n_out, shape[1])


def build_simple(shape: Sequence[int], n_out: int) -> nn.Sequential:
    return simple_net(prod(shape), n_out)


def build_article(shape: Sequence[int], n_out: int) -> nn.Sequential:
    return article_net(prod(shape), n_out)


def find_ours(
    arch: str | Callable,  # name of an architecture, or what else `digit_learner` takes
) -> Callable[[Sequence[int], int], nn.Sequential] | None:
    "Return the builder of one of digitfast's own networks; None where `arch` is none of them."
    entry = ARCHITECTURES.get(arch, "") if isinstance(arch, str) else ""
    return resolve(entry) if entry.startswith("digitfast.") else None


def is_named(
    arch: str,
) -> bool:
    "Return whether there is an architecture of that name."
    try:
        find_architecture(arch)
    except UnknownName:
        return False
    return True


def build_network(
    arch: str,  # name of an architecture that `fit` takes
    n_out: int,  # classes
    size: int,  # side of the images, in pixels
) -> nn.Module:
    """Return a new network for images of one channel, as `digit_learner` builds it.

    Raises: `UnknownName`, `BadSetting`.
    """
    if ours := find_ours(arch):
        return ours((1, size, size), n_out)
    build: Any = find_architecture(arch)
    from fastai.vision.learner import create_timm_model, create_vision_model
    with warnings.catch_warnings():
        # of the way in which fastai calls torchvision
        warnings.filterwarnings("ignore", message=".*(pretrained|weight enum).*")
        if isinstance(build, str):
            return create_timm_model(build, n_out, pretrained=False, n_in=1)[0]
        return create_vision_model(build, n_out, pretrained=False, n_in=1)


def find_architecture(
    name: str,  # of an architecture that `vision_learner` takes
) -> Callable | str:  # torchvision's or fastai's builder, or the name itself for one of timm's
    "Return what `vision_learner` takes as `arch`, by name. Raises: `UnknownName`."
    if name in ARCHITECTURES:
        return resolve(ARCHITECTURES[name])
    import torchvision
    from fastai.vision.models import xresnet
    if name in xresnet.__all__ and name.startswith("x"):
        return getattr(xresnet, name)
    if name in torchvision.models.list_models(module=torchvision.models):
        return torchvision.models.get_model_builder(name)
    try:
        import timm
    except ImportError:
        raise unknown("architecture", name, ARCHITECTURES, " Also torchvision's classification "
                      "networks, and timm's where it is installed: pip install timm.") from None
    if timm.is_model(name):
        return name
    raise unknown("architecture", name, ARCHITECTURES,
                  " Also all classification networks of torchvision and timm.")
