"""How a network computes while it trains: its precision, and small convolutions as matrix products.

Both replace `model.forward` while a context lasts; the model itself, and so what is exported, does
not change. Validation is in fp32, as the exported learner computes.
"""
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from fastai.torch_core import to_float
from torch import nn
from torch.nn.modules.conv import _ConvNd

from digitfast.errors import BadSetting

_LOW = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_precision(
    precision: str,  # fp32, bf16, fp16 or auto
    model: nn.Module,  # to train
    device: torch.device,  # where it is trained
) -> str:  # fp32, bf16 or fp16
    """Return the precision to train in: for "auto", the one that is fast here, or else fp32.

    bf16 is faster only with matrix units: AMX in a CPU, tensor cores in a GPU. A network without
    convolutions gains nothing from it.

    Raises: `BadSetting` for fp16 without a GPU.
    """
    if precision == "fp16" and device.type != "cuda":
        raise BadSetting("precision='fp16' needs a CUDA GPU; use bf16, fp32 or auto")
    if precision != "auto":
        return precision
    if isinstance(model, torch.jit.ScriptModule):  # which computes as it was compiled
        return "fp32"
    if not any(isinstance(module, _ConvNd) for module in model.modules()):
        return "fp32"
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # not in older releases of torch
    has_amx = capabilities.get("amx_bf16") and capabilities.get("amx_tile")
    return "bf16" if device.type == "cpu" and has_amx else "fp32"


@contextmanager
def training_arithmetic(
    model: nn.Module,  # to train
    device: torch.device,  # where it is trained
    precision: str,  # from `choose_precision`
) -> Iterator[None]:
    "Enter `small_convolutions_as_products` and `low_precision_training` where they apply."
    with ExitStack() as contexts:
        if device.type == "cpu":
            contexts.enter_context(small_convolutions_as_products(model))
        if precision in _LOW:
            contexts.enter_context(low_precision_training(model, device, _LOW[precision]))
        yield


@contextmanager
def low_precision_training(
    model: nn.Module,  # to train
    device: torch.device,  # where it is trained
    dtype: torch.dtype,  # torch.bfloat16 or torch.float16
) -> Iterator[None]:
    """While the context lasts, `model` in training mode computes in `dtype`.

    It does so in the operations that torch's autocast considers safe.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise BadSetting("a scripted or traced network computes as it was compiled; take "
                         "precision='fp32', or train it before it is compiled")
    forward = model.forward

    def forward_in_low_precision(*args, **kwargs):
        if not model.training:
            return forward(*args, **kwargs)
        with torch.autocast(device.type, dtype):
            out = forward(*args, **kwargs)
        return to_float(out)

    with _replaced_forward(model, forward_in_low_precision):
        yield


class _Forward:
    "A replaced `forward` of a module. Copies of the module, in memory or in files, do not have it."

    def __init__(self, module: nn.Module, own: Callable | None, compute: Callable):
        self.module = module
        self.own = own  # the `forward` that it replaces in the module itself, if any
        self.compute = compute

    def __call__(self, *args, **kwargs):
        return self.compute(*args, **kwargs)

    def __reduce__(self):
        if self.own is not None:
            return _unchanged, (self.own,)
        return getattr, (self.module, "forward")  # the class's, as the copy has no other yet


def _unchanged(own: Callable) -> Callable:
    return own


@contextmanager
def _replaced_forward(module: nn.Module, forward: Callable) -> Iterator[None]:
    "While the context lasts, `module` has this `forward`; then restore the previous one."
    own = vars(module).get("forward")  # of a compiled model, for example
    module.forward = _Forward(module, own, forward)
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


@contextmanager
def plain_forward(
    model: nn.Module,  # perhaps within one of the contexts above
) -> Iterator[None]:
    "While the context lasts, undo all replacements of `forward` that this module has made."
    changed = {module: vars(module).pop("forward") for module in model.modules()
               if isinstance(vars(module).get("forward"), _Forward)}
    try:
        yield
    finally:
        for module, forward in changed.items():
            module.forward = forward


@contextmanager
def small_convolutions_as_products(
    model: nn.Module,  # on the CPU; elsewhere nothing changes
) -> Iterator[None]:
    """While the context lasts, compute convolutions on very few pixels as one matrix product.

    For 28×28 images the last stage of resnet18 has 1×1 pixels, the one before it 2×2: there most
    cells of a kernel meet only padding, and the CPU's convolutions are at their slowest. The result
    is the same except for rounding.
    """
    convs = [module for module in model.modules()
             if type(module) is nn.Conv2d and "forward" not in vars(module)
             and module.groups == 1 and module.padding_mode == "zeros"
             and not isinstance(module.padding, str)]
    with ExitStack() as contexts:
        for conv in convs:
            contexts.enter_context(_replaced_forward(conv, partial(_convolve, conv)))
        yield


def _convolve(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """Return `conv(x)`, by a matrix product if possible.

    It is possible if every output pixel sees all input pixels that any output pixel sees.
    """
    found = None
    if x.dim() == 4 and x.device.type == "cpu":
        found = _cells(x.shape[2:], conv.kernel_size, conv.stride, conv.padding, conv.dilation)
    if found is None:
        return nn.Conv2d.forward(conv, x)
    cells, height, rows, columns = found
    n_out, n_in = conv.weight.shape[:2]
    n_to, n_from = cells.shape
    if cells.numel() == 1:
        matrix = conv.weight.flatten(2)[:, :, int(cells)]
    else:
        weight = conv.weight.flatten(2)
        if torch.is_autocast_enabled("cpu"):
            weight = weight.to(torch.get_autocast_dtype("cpu"))  # half the memory to gather
        weight = weight.permute(2, 0, 1).contiguous().index_select(0, cells.flatten())
        matrix = weight.view(n_to, n_from, n_out, n_in).transpose(1, 2)
        matrix = matrix.reshape(n_to * n_out, n_from * n_in)
    pixels = x[:, :, rows, columns].permute(0, 2, 3, 1).flatten(1)
    bias = None if conv.bias is None else conv.bias.repeat(n_to)
    out = F.linear(pixels, matrix, bias)
    return out.view(len(x), height, n_to // height, n_out).permute(0, 3, 1, 2)


@lru_cache(maxsize=256)
def _cells(shape, kernel, stride, padding, dilation) -> tuple | None:
    """Return which cell of the kernel joins which pixels: `[output pixels, input pixels]`.

    Return also the height of the output, and the slices of the input pixels that are seen; None if
    some output pixel does not see all of those.
    """
    axes = [_axis_cells(*axis)
            for axis in zip(shape, kernel, stride, padding, dilation, strict=True)]
    if None in axes:
        return None
    (down, rows), (across, columns) = axes
    cells = down[:, None, :, None] * kernel[1] + across[None, :, None, :]
    return cells.reshape(len(down) * len(across), -1), len(down), rows, columns


def _axis_cells(
    n: int,
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
) -> tuple[torch.Tensor, slice] | None:
    "Do the same as `_cells` along one axis."
    to = torch.arange((n + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1)
    offset = torch.arange(n) + padding - stride * to[:, None]
    joined = (offset % dilation == 0) & (offset >= 0) & (offset < dilation * kernel)
    seen = joined.any(0).nonzero().flatten()
    if not len(seen) or not len(to):
        return None
    if not joined[:, seen].all() or len(seen) != seen[-1] - seen[0] + 1:
        return None
    return offset[:, seen] // dilation, slice(int(seen[0]), int(seen[-1]) + 1)
