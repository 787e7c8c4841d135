"""Run networks with torch, as a `Predictor` calls them."""
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import nn

from digitfast.errors import BadData, DigitError, UnknownName
from digitfast.models.architectures import build_network


class TorchNetwork:
    "A torch network as a `Predictor` calls it: NumPy in, NumPy out."

    def __init__(
        self,
        model: nn.Module,  # `[n, 1, size, size]` floats in 0..1 to `[n, classes]` logits
        before: Callable[[torch.Tensor], torch.Tensor] | None = None,  # transform of the images
    ):
        self.model = model.eval()
        self.before = before

    def to(
        self,
        device: torch.device,
    ) -> "TorchNetwork":
        "Move the network to `device`, and return it."
        self.model.to(device)
        return self

    def __call__(
        self,
        images: np.ndarray,  # float32 `[n, 1, size, size]`, 0 = paper to 1 = ink
    ) -> np.ndarray:  # float32 `[n, classes]`
        "Return the logits."
        with torch.inference_mode():
            weight = next(self.model.parameters(), None)
            x = torch.from_numpy(images)
            if self.before:
                x = torch.as_subclass(self.before(x), torch.Tensor)
            x = x.to("cpu" if weight is None else weight.device)
            return self.model(x).float().cpu().numpy()


def rebuild_network(
    weights: dict[str, torch.Tensor],  # by name, as in the network's `state_dict`
    arch: str | nn.Module,  # name of the architecture, or the network itself
    n_out: int,  # classes
    size: int,  # side of the images, in pixels
    path: object,  # of the file with the weights, for messages
) -> TorchNetwork:
    """Return a network of that architecture with these weights.

    It takes up no memory until names, shapes and types of the weights fit the architecture.
    Raises: `BadData`, which says which weights do not fit.
    """
    try:
        model = arch if isinstance(arch, nn.Module) else _build_on_meta(arch, n_out, size)
    except UnknownName as e:
        raise BadData(f"{path} holds a network that cannot be built ({e}) If it is one of your "
                      "own, open the .onnx of its run, or: open_predictor(path, network=…)") from e
    except (DigitError, AssertionError, RuntimeError, StopIteration, TypeError, ValueError) as e:
        raise BadData(f"{path} holds a network that cannot be built: "
                      f"{arch} for images of {size} pixels ({e})") from e
    expected = model.state_dict()
    arch = type(arch).__name__ if isinstance(arch, nn.Module) else arch
    for problem, names in (("lacks the weights", expected.keys() - weights.keys()),
                           ("has unknown weights", weights.keys() - expected.keys())):
        if names:
            raise BadData(f"{path} {problem} {_some(names)}: "
                          f"they do not fit {arch} with {n_out} classes")
    for name, weight in weights.items():
        if (weight.shape, weight.dtype) != (expected[name].shape, expected[name].dtype):
            raise BadData(f"{path} has weights that do not fit {arch}: "
                          f"{name} is {_kind(weight)} instead of {_kind(expected[name])}")
        if not weight.isfinite().all():
            raise BadData(f"{path} has weights that are not finite numbers: {name}; "
                          "its training has diverged")
    if any(buffer.is_meta for name, buffer in model.named_buffers() if name not in expected):
        model = build_network(arch, n_out, size)  # some of timm's compute what they do not save
    model.load_state_dict(weights, assign=True)
    return TorchNetwork(model)


def _build_on_meta(arch: str, n_out: int, size: int) -> nn.Module:
    "Return the network with names and shapes of its weights only, if it can be built that way."
    try:
        with torch.device("meta"):
            return build_network(arch, n_out, size)
    except NotImplementedError:  # some of torchvision's copy weights while they are built
        return build_network(arch, n_out, size)


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _kind(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
