"""Networks that torch runs, as a `Predictor` asks them."""
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from digitfast.errors import BadData, DigitError
from digitfast.models.architectures import build_network


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


def _some(names) -> str:
    names = sorted(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _kind(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
