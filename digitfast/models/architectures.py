"""Networks by the name of their architecture. Needs torch; fastai only for its own."""
import warnings
from collections.abc import Callable
from typing import Any

from torch import nn

from digitfast.models.digit_nets import article_net, digit_net, digit_net_deep, simple_net
from digitfast.registry import ARCHITECTURES, resolve, unknown

#: What is written here: architecture → a network for images of that size.
_OURS: dict[str, Callable[[int, int], nn.Module]] = {
    "digitnet": lambda n_out, size: digit_net(1, n_out, size),
    "digitnet_deep": lambda n_out, size: digit_net_deep(1, n_out, size),
    "simple": lambda n_out, size: simple_net(size * size, n_out),
    "article": lambda n_out, size: article_net(size * size, n_out),
}


def build_network(
    arch: str,  # name of an architecture that `fit` takes
    n_out: int,  # classes
    size: int,  # side of the images, in pixels
) -> nn.Module:
    "A new network for images of one channel, as `digit_learner` builds it. Raises: `UnknownName`, `BadSetting`."
    if arch in _OURS:
        return _OURS[arch](n_out, size)
    build: Any = find_architecture(arch)
    from fastai.vision.learner import create_timm_model, create_vision_model
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(pretrained|weight enum).*")  # how fastai calls torchvision
        if isinstance(build, str):
            return create_timm_model(build, n_out, pretrained=False, n_in=1)[0]
        return create_vision_model(build, n_out, pretrained=False, n_in=1)


def find_architecture(
    name: str,  # of an architecture that `vision_learner` takes
) -> Callable | str:  # torchvision's or fastai's builder, or the name itself for one of timm's
    "What `vision_learner` takes as `arch`, by name. Raises: `UnknownName`."
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
        raise unknown("architecture", name, ARCHITECTURES, " Also torchvision's classification networks, and "
                      "timm's where it is installed: pip install timm.") from None
    if timm.is_model(name):
        return name
    raise unknown("architecture", name, ARCHITECTURES, " Also all classification networks of torchvision and timm.")
