"""Devices by name, checked before anything is read."""
import torch

from digitfast.errors import BadSetting


def named_device(
    device: str | torch.device | None,  # such as "cpu" or "cuda:1"; None: the GPU if there is one
) -> torch.device:
    "Return the device of that name, a GPU with its number. Raises: `BadSetting` for a missing one."
    if device is None:
        from fastai.torch_core import default_device  # imports all of fastai
        return default_device()
    try:
        found = torch.empty(0, device=device).device
        if found.type == "meta":
            raise RuntimeError("meta holds no values")
        return found
    except Exception as e:  # each kind of device has its own
        there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count())),
                 *(["mps"] if torch.backends.mps.is_available() else [])]
        raise BadSetting(f"device={str(device)!r} is not on this machine; "
                         f"it has {', '.join(there)}") from e
