"""Where the time of a training step goes on a GPU: plain steps and the CUDA graph, as JSON.

    python benchmarks/gpu_profile.py

For each network: microseconds per step by the clock and in kernels (the rest are gaps between
them), kernels and copies to the CPU per step, and the share of the kernels' time in convolutions
and matrix products.
"""
import contextlib
import io
import json
import re
import time
from collections import Counter

import torch
from fastai.torch_core import set_seed
from time_to_accuracy import NoValidation
from torch.profiler import ProfilerActivity, profile

from digitfast import (
    FusedAdam,
    LabelSmoothing,
    digit_dls,
    digit_learner,
    digits_path,
    train_learner,
)
from digitfast.training import cuda_graphs

#: Kernels of convolutions and matrix products.
ARITHMETIC = re.compile("conv|gemm|cutlass|cudnn|xmma|wgrad|dgrad|fprop|winograd|nvjet",
                        re.IGNORECASE)


def step_profiles(archs: tuple[str, ...], source: str = "mnist") -> list[dict]:
    "Return the profiles of these networks, with plain steps and with a CUDA graph."
    share = 0.1  # of the training images: 46 steps of 128
    dls = digit_dls(digits_path(source), holdout=1 - share, bs=128 if source == "mnist" else 16)
    return [_profile(arch, dls, captured) for arch in archs for captured in (False, True)]


def _profile(arch: str, dls, captured: bool) -> dict:
    "Train three times: to warm up, by the clock, and under the profiler."
    timed_epochs = 8  # with the capture of the graph
    usual = cuda_graphs.DEVICES
    cuda_graphs.DEVICES = usual if captured else set()
    on_gpu = dls.device.type == "cuda"

    def train(epochs: int = 1) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            train_learner(learn, epochs, 0.001, cbs=[LabelSmoothing(), NoValidation()])
        if on_gpu:
            torch.cuda.synchronize()

    try:
        set_seed(1)
        learn = digit_learner(dls, arch, opt_func=FusedAdam)
        train()
        start = time.perf_counter()
        train(timed_epochs)
        wall = (time.perf_counter() - start) / timed_epochs
        activities = [ProfilerActivity.CPU]
        if on_gpu:
            activities.append(ProfilerActivity.CUDA)
        with profile(activities=activities) as trace:
            train()
    finally:
        cuda_graphs.DEVICES = usual
    on_device = [e for e in trace.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    kernels = [e for e in on_device if not e.name.startswith(("Memcpy", "Memset"))]
    steps = len(dls.train)
    busy = sum(e.device_time for e in kernels)
    longest = Counter()
    for e in kernels:
        longest[e.name[:90]] += e.device_time / steps
    arithmetic = sum(e.device_time for e in kernels if ARITHMETIC.search(e.name))
    return {"arch": arch, "captured": captured, "steps": steps,
            "us_per_step": round(1e6 * wall / steps, 1),
            "kernel_us_per_step": round(busy / steps, 1),
            "kernels_per_step": round(len(kernels) / steps, 1),
            "copies_to_cpu_per_step": round(sum("DtoH" in e.name for e in on_device) / steps, 2),
            "arithmetic_share": round(arithmetic / busy, 3) if busy else None,
            "longest_us_per_step": {name: round(us, 1) for name, us in longest.most_common(12)}}


if __name__ == "__main__":
    for found in step_profiles(("simple", "digitnet", "digitnet_deep", "resnet18")):
        print(json.dumps(found), flush=True)
