"""Where the time of a training step goes on a GPU: plain steps and the CUDA graph, as JSON.

    python benchmarks/gpu_profile.py [SOURCE]

For each network: microseconds a step by the clock and in kernels (what is missing are gaps between them), kernels and
copies to the CPU per step, and the part of the kernels' time that convolutions and matrix products take.
"""
import json
import re
import sys
import time

import torch
from fastai.callback.core import Callback, CancelValidException
from fastai.torch_core import set_seed
from torch.profiler import ProfilerActivity, profile

from digitfast import (
    FusedAdam,
    LabelSmoothing,
    RandomAffine,
    WeightAverage,
    cuda_graphs,
    digit_dls,
    digit_learner,
    digits_path,
    train_learner,
)

PART = 0.1  # of the training images: 46 steps of 128
EPOCHS = 8  # that are timed; the capture of the graph is among them
ARITHMETIC = re.compile("conv|gemm|cutlass|cudnn|xmma|wgrad|dgrad|fprop|winograd|nvjet", re.IGNORECASE)


class _NoValidation(Callback):
    def before_validate(self):
        raise CancelValidException


def step_profile(arch: str, source: str, captured: bool) -> dict:
    "Train on a part of the images three times: to warm up, by the clock, and under the profiler."
    usual = cuda_graphs.DEVICES
    cuda_graphs.DEVICES = usual if captured else set()
    try:
        set_seed(1)
        deep = arch == "digitnet_deep"
        dls = digit_dls(digits_path(source), holdout=1 - PART, batch_tfms=[RandomAffine()] if deep else None)
        learn = digit_learner(dls, arch, opt_func=FusedAdam)
        cbs = [LabelSmoothing(), *([WeightAverage()] if deep else [])]
        on_gpu = dls.device.type == "cuda"
        wait = torch.cuda.synchronize if on_gpu else lambda: None

        def train(epochs=1):
            train_learner(learn, epochs, 0.001, cbs=[*cbs, _NoValidation()])
            wait()
        train()
        start = time.perf_counter()
        train(EPOCHS)
        wall = (time.perf_counter() - start) / EPOCHS
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
        with profile(activities=activities) as trace:
            train()
    finally:
        cuda_graphs.DEVICES = usual
    on_device = [e for e in trace.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    kernels = [e for e in on_device if not e.name.startswith(("Memcpy", "Memset"))]
    steps, busy = len(dls.train), sum(e.device_time for e in kernels)
    arithmetic = sum(e.device_time for e in kernels if ARITHMETIC.search(e.name))
    return {"arch": arch, "captured": captured, "steps": steps, "us_per_step": round(1e6 * wall / steps, 1),
            "kernel_us_per_step": round(busy / steps, 1), "kernels_per_step": round(len(kernels) / steps, 1),
            "copies_to_cpu_per_step": round(sum("DtoH" in e.name for e in on_device) / steps, 2),
            "arithmetic_share": round(arithmetic / busy, 3) if busy else None}


if __name__ == "__main__":
    for network in ("simple", "digitnet", "digitnet_deep", "resnet18"):
        for with_graph in (False, True):
            print(json.dumps(step_profile(network, *sys.argv[1:2] or ["mnist"], with_graph)), flush=True)
