"""Networks by the name of their architecture: built, given weights, asked. Needs torch; fastai only for its own."""
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from digitfast.errors import BadData, DigitError
from digitfast.models.digit_nets import article_net, digit_net, digit_net_deep, simple_net
from digitfast.registry import ARCHITECTURES, resolve, unknown

#: What is written here: architecture → a network for images of that size.
_OURS: dict[str, Callable[[int, int], nn.Module]] = {
    "digitnet": lambda n_out, size: digit_net(1, n_out, size),
    "digitnet_deep": lambda n_out, size: digit_net_deep(1, n_out, size),
    "simple": lambda n_out, size: simple_net(size * size, n_out),
    "article": lambda n_out, size: article_net(size * size, n_out),
}


class TorchNetwork:
    "A network of torch's as a `Predictor` asks it: NumPy in, NumPy out."

    def __init__(
        self,
        model: nn.Module,  # `[n, 1, size, size]` floats in 0..1 to `[n, classes]` logits
        before: Callable[[torch.Tensor], torch.Tensor] | None = None,  # what the images go through first
    ):
        self.model, self.before = model.eval(), before

    def __call__(
        self,
        images: np.ndarray,  # float32 `[n, 1, size, size]`, 0 = paper to 1 = ink
    ) -> np.ndarray:  # float32 `[n, classes]`
        "The logits."
        with torch.inference_mode():
            x = torch.from_numpy(images)
            if self.before:
                x = torch.as_subclass(self.before(x), torch.Tensor)
            return self.model(x).float().cpu().numpy()


def rebuilt_network(
    weights: dict[str, torch.Tensor],  # by name, as in the network's `state_dict`
    arch: str,  # name of the architecture
    n_out: int,  # classes
    size: int,  # side of the images, in pixels
    path: object,  # of the file that the weights are from, for the message
) -> TorchNetwork:
    """A network of that architecture with these weights.

    Nothing is taken up in memory before names, shapes and types of the weights are those of the architecture.
    Raises: `BadData`, which says which weights do not fit.
    """
    try:
        model = _without_weights(arch, n_out, size)
    except (DigitError, AssertionError, RuntimeError, StopIteration, TypeError, ValueError) as e:
        raise BadData(f"{path} holds a network that cannot be built, {arch} for images of {size} pixels ({e})") from e
    wanted = model.state_dict()
    for problem, names in (("lacks the weights", wanted.keys() - weights.keys()),
                           ("has strange weights", weights.keys() - wanted.keys())):
        if names:
            raise BadData(f"{path} {problem} {_some(names)}: they do not fit {arch} with {n_out} classes")
    for name, weight in weights.items():
        if (weight.shape, weight.dtype) != (wanted[name].shape, wanted[name].dtype):
            raise BadData(f"{path} has weights that do not fit {arch}: {name} is {_kind(weight)} instead of "
                          f"{_kind(wanted[name])}")
        if not weight.isfinite().all():
            raise BadData(f"{path} has weights that are no numbers: {name}; its training has diverged")
    if any(buffer.is_meta for name, buffer in model.named_buffers() if name not in wanted):
        model = build_network(arch, n_out, size)  # some of timm's compute what they do not save
    model.load_state_dict(weights, assign=True)
    return TorchNetwork(model)


def _without_weights(arch: str, n_out: int, size: int) -> nn.Module:
    "The network as names and shapes alone, where it can be built so."
    try:
        with torch.device("meta"):
            return build_network(arch, n_out, size)
    except NotImplementedError:  # some of torchvision's copy weights while they are built
        return build_network(arch, n_out, size)


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


def _some(names) -> str:
    names = sorted(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _kind(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
