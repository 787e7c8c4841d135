"""The time until a network reads 99.0, 99.5 and 99.7 % of MNIST's test images: means of many seeds.

    python benchmarks/time_to_accuracy.py [--seeds 30] [--json FILE] [--targets 99.0 99.5]

A time is from the pixels in the device's memory to the last weight. It includes schedule,
augmentation, warm-up and capture of the CUDA graph, but not decoding MNIST, making the network and
validation. The first training of a process, which loads libraries, is reported separately. The test
images only report; settings were chosen on held-out training images.
"""
import argparse
import contextlib
import io
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from fastai.callback.core import Callback, CancelValidException
from fastai.torch_core import set_seed

from digitfast import (
    FusedAdam,
    LabelSmoothing,
    RandomAffine,
    WeightAverage,
    digit_dls,
    digit_learner,
    digits_path,
    train_learner,
)
from digitfast.runs.environment import environment
from digitfast.training import cuda_graphs

RECIPES = {  # accuracy in percent: network and training
    "99.0": {"arch": "digitnet", "epochs": 1, "bs": 256, "lr": 0.02},
    "99.5": {"arch": "digitnet_deep", "epochs": 3, "bs": 256, "lr": 0.02,
             "augment": 0.4, "ema": 0.99},
    "99.7": {"arch": "digitnet_deep", "epochs": 30, "bs": 128, "lr": 0.01,
             "augment": 1.0, "ema": 0.999},  # the named run "best"
}


class NoValidation(Callback):
    "Skip the validation of every epoch."

    def before_validate(self):
        raise CancelValidException


class _Stopwatch:
    "While the context lasts, measure the seconds of warm-up and capture."

    def __init__(self, wait: Callable[[], None]):
        self.wait = wait
        self.seconds = 0.0

    def __enter__(self):
        self.usual = cuda_graphs.begin
        cuda_graphs.begin = self.timed
        return self

    def __exit__(self, *_):
        cuda_graphs.begin = self.usual

    def timed(self, *args):
        start = time.perf_counter()
        captured = self.usual(*args)
        self.wait()
        self.seconds += time.perf_counter() - start
        return captured


def measure(
    recipe: dict,  # a value of `RECIPES`
    source: str = "mnist",  # what `digits_path` takes
    seeds: int = 30,  # trainings, with seeds 1, 2, …
    plain: int = 1,  # trainings without a CUDA graph, with the first of these seeds
    say: Callable[[dict], None] = lambda found: None,  # gets all results after each training
) -> dict:
    "Train with seed 0, which loads libraries, then with each seed, and finally with plain steps."
    augment = recipe.get("augment")
    ema = recipe.get("ema")
    dls = digit_dls(digits_path(source), bs=recipe["bs"],
                    batch_tfms=[RandomAffine(augment)] if augment else None)
    wait = torch.cuda.synchronize if dls.device.type == "cuda" else lambda: None

    def train(seed: int) -> dict:
        set_seed(seed)
        learn = digit_learner(dls, recipe["arch"], opt_func=FusedAdam)
        learn.model.to(dls.device)
        cbs = [LabelSmoothing(), *([WeightAverage(ema)] if ema else []), NoValidation()]
        wait()
        start = time.perf_counter()
        with _Stopwatch(wait) as watch, contextlib.redirect_stdout(io.StringIO()):
            train_learner(learn, recipe["epochs"], recipe["lr"], cbs=cbs)
        wait()
        seconds = time.perf_counter() - start
        with learn.no_bar():
            return {"seed": seed, "seconds": seconds, "warm_up_and_capture": watch.seconds,
                    "accuracy": learn.validate()[1]}

    found = {"recipe": recipe, "training_images": len(dls.train_ds),
             "first_of_the_process": train(0), "runs": [], "plain_steps": []}
    for seed in range(1, seeds + 1):
        found["runs"].append(train(seed))
        say(found)
    usual = cuda_graphs.DEVICES
    cuda_graphs.DEVICES = set()
    try:
        found["plain_steps"] += [train(seed) for seed in range(1, plain + 1)]
    finally:
        cuda_graphs.DEVICES = usual
    say(found)
    return found


def row(what: str, found: dict) -> str:
    "Return a line of a Markdown table."
    def mean(runs: list[dict], value: Callable[[dict], float]) -> str:
        return f"{statistics.mean(map(value, runs)):.3f}" if runs else "–"

    runs = found["runs"]
    recipe = found["recipe"]
    deviation = statistics.stdev(100 * run["accuracy"] for run in runs) if len(runs) > 1 else 0.0
    cells = (what, f"{recipe['arch']}, {recipe['epochs']} × {recipe['bs']}",
             f"{mean(runs, lambda run: 100 * run['accuracy'])} ± {deviation:.3f} %",
             mean(runs, lambda run: run["seconds"]),
             mean(runs, lambda run: run["seconds"] - run["warm_up_and_capture"]),
             mean(found["plain_steps"], lambda run: run["seconds"]),
             f"{found['first_of_the_process']['seconds']:.2f}", str(len(runs)))
    return f"| {' | '.join(cells)} |"


HEAD = ("| target | network, epochs × batch | test accuracy | seconds "
        "| without warm-up and capture | plain steps | first of the process | n |\n"
        "| --- | --- | -: | -: | -: | -: | -: | -: |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--targets", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    device = digit_dls(digits_path()).device
    results = {"date": time.strftime("%Y-%m-%d"), "targets": {}, **environment(device)}
    print(HEAD, flush=True)
    for target in args.targets:
        results["targets"][target] = found = measure(RECIPES[target], seeds=args.seeds)
        print(row(f"{target} %", found), flush=True)
        if args.json:
            args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
