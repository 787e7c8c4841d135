"""The hardware and package versions behind a measurement."""
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from digitfast import __version__


def environment(
    device: torch.device,  # where the network is
) -> dict[str, Any]:
    "Return the hardware and package versions, as summary.json and benchmark results record them."
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    packages = ("fastai", "fastcore", "torch", "torchvision")
    return {"device": {"type": device.type, "name": name, "cpu_cores": os.cpu_count()},
            "versions": {"python": platform.python_version(), "digitfast": __version__,
                         **{package: version(package) for package in packages}}}


def _cpu_name() -> str:
    "Return the processor's name if the system reports it, otherwise its architecture."
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
