"""How soon a network reads 99.0, 99.5 and 99.7 % of MNIST's test images: the mean of many seeds, by one command.

    python benchmarks/time_to_accuracy.py [--seeds 30] [--json FILE] [--targets 99.0 99.5]

A time is from the pixels in the device's memory to the last weight: schedule, augmentation, warm-up and capture of the
CUDA graph are in it; decoding MNIST, making the network and validation are not. The first training of the process, in
which libraries are loaded, is told apart. The test images report; the settings were chosen on held-out training images.
"""
import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from fastai.callback.core import Callback, CancelValidException
from fastai.torch_core import set_seed

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
from digitfast.circumstances import circumstances

RECIPES = {  # accuracy in percent: network and training
    "99.0": {"arch": "digitnet", "epochs": 1, "bs": 256, "lr": 0.02},
    "99.5": {"arch": "digitnet_deep", "epochs": 3, "bs": 256, "lr": 0.02, "augment": 0.4, "ema": 0.995},
    "99.7": {"arch": "digitnet_deep", "epochs": 30, "bs": 128, "lr": 0.01, "augment": 1.0, "ema": 0.999},
}
PLAIN_SEEDS = 3  # trainings without the graph, to compare with


class _NoValidation(Callback):
    def before_validate(self):
        raise CancelValidException


class _Stopwatch:
    "Seconds of warm-up and capture, which happen inside a training."

    def __init__(self, wait):
        self.wait, self.seconds = wait, 0.0

    def __enter__(self):
        self.usual = cuda_graphs.begin
        cuda_graphs.begin = self.timed
        self.seconds = 0.0
        return self

    def __exit__(self, *_):
        cuda_graphs.begin = self.usual

    def timed(self, *args):
        start = time.perf_counter()
        done = self.usual(*args)
        self.wait()
        self.seconds += time.perf_counter() - start
        return done


def measure(target: str, seeds: int) -> dict:
    "Train with seeds 1, 2, … by the recipe for `target`."
    recipe = RECIPES[target]
    augment, ema = recipe.get("augment"), recipe.get("ema")
    dls = digit_dls(digits_path(), bs=recipe["bs"], val_bs=2000,
                    batch_tfms=[RandomAffine(augment)] if augment else None)
    wait = torch.cuda.synchronize if dls.device.type == "cuda" else lambda: None

    def train(seed):
        set_seed(seed)
        learn = digit_learner(dls, recipe["arch"], opt_func=FusedAdam)
        learn.model.to(dls.device)
        cbs = [LabelSmoothing(), *([WeightAverage(ema)] if ema else []), _NoValidation()]
        wait()
        start = time.perf_counter()
        with _Stopwatch(wait) as watch:
            train_learner(learn, recipe["epochs"], recipe["lr"], cbs=cbs)
        wait()
        seconds = time.perf_counter() - start
        with learn.no_bar():
            return {"seed": seed, "seconds": seconds, "warm_up_and_capture": watch.seconds,
                    "accuracy": learn.validate()[1]}
    first = train(0)
    runs = [train(seed) for seed in range(1, seeds + 1)]
    captured = cuda_graphs.DEVICES
    cuda_graphs.DEVICES = set()
    try:
        plain = [train(seed) for seed in range(1, min(seeds, PLAIN_SEEDS) + 1)]
    finally:
        cuda_graphs.DEVICES = captured
    return {"target": float(target) / 100, "recipe": recipe, "first_training_of_the_process": first, "runs": runs,
            "plain_steps": plain, "training_images": len(dls.train_ds)}


def summary(found: dict) -> str:
    "One line of Markdown table."
    runs = found["runs"]
    accuracies = [100 * run["accuracy"] for run in runs]
    deviation = statistics.stdev(accuracies) if len(runs) > 1 else 0.0
    return (f"| {100 * found['target']:.1f} % | {found['recipe']['arch']}, {found['recipe']['epochs']} × "
            f"{found['recipe']['bs']} | {statistics.mean(accuracies):.3f} ± {deviation:.3f} % | "
            f"{statistics.mean(run['seconds'] for run in runs):.3f} s | "
            f"{statistics.mean(run['seconds'] - run['warm_up_and_capture'] for run in runs):.3f} s | "
            f"{statistics.mean(run['seconds'] for run in found['plain_steps']):.3f} s | "
            f"{found['first_training_of_the_process']['seconds']:.2f} s | {len(runs)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--targets", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results = {"date": time.strftime("%Y-%m-%d"), "targets": []}
    print("| target | network, epochs × batch | test accuracy | seconds | without warm-up and capture | plain steps | "
          "first in the process | n |\n| --- | --- | --- | -: | -: | -: | -: | -: |", flush=True)
    for target in args.targets:
        found = measure(target, args.seeds)
        results["targets"].append(found)
        print(summary(found), flush=True)
        results |= circumstances(torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu"))
        if args.json:
            args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
