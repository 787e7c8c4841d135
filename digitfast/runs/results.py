"""The results of a training, written into its run folder."""
import json
import time
import warnings
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastcore.basics import noop

from digitfast.data.images import PILDigit, item_label
from digitfast.data.mnist_form import is_in_mnist_form
from digitfast.data.pictures import fit_square
from digitfast.errors import DigitError
from digitfast.evaluation.accuracy import accuracy_interval
from digitfast.files import whole_file
from digitfast.inference.calibration import calibrate
from digitfast.inference.onnx_export import TRIED, export_onnx
from digitfast.inference.pickles import save_learner
from digitfast.inference.predictor import OWN_MODEL, Predictor, predictor_of, save_predictor
from digitfast.models.architectures import is_named
from digitfast.runs.digits import open_start
from digitfast.runs.environment import environment
from digitfast.runs.folders import LEARNER, MODEL, SUMMARY, Run, write_steps
from digitfast.training.precision import choose_precision
from digitfast.training.processes import on_first_process
from digitfast.training.recipe import Recipe
from digitfast.training.train import LEAST_STEPS


@on_first_process
def write_results(
    folder: Path,
    recipe: Recipe,
    summary: dict[str, Any],  # without results
    learn: Learner,
    start: float,  # of the run, on the clock of `time.perf_counter`
) -> Run:
    "Write steps.csv, learner.pkl, model.safetensors and, last, summary.json, and return the run."
    write_steps(folder, learn.recorder.lrs, learn.recorder.losses)
    summary = {**summary, **_collect_results(learn, recipe),
               "precision": choose_precision(recipe.precision, learn.model, learn.dls.device),
               **environment(learn.dls.device)}
    pickled = save_learner(learn, folder / LEARNER)
    predictor = predictor_of(learn, summary)
    save_predictor(predictor, folder / MODEL)
    if not is_named(recipe.arch):
        _write_onnx(predictor, learn.dls, folder / OWN_MODEL)
    summary["seconds"]["total"] = round(time.perf_counter() - start, 2)
    with whole_file(folder / SUMMARY) as part:
        part.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return Run(folder, summary, sha256(pickled.read_bytes()).hexdigest())


def _write_onnx(predictor: Predictor, dls: DataLoaders, path: Path) -> None:
    "Write a network of one's own as a file that answers without its code; warn if it cannot be."
    some = [np.asarray(fit_square(PILDigit.create(item), predictor.size))
            for item in dls.train_ds.items[:TRIED]]
    try:
        export_onnx(predictor, path, np.stack(some))
    except DigitError as e:
        warnings.warn("the run holds the weights of this network, not its code; open it with "
                      f"open_predictor({str(path.parent)!r}, network=…): {e}", stacklevel=2)


def _calibrate(learn: Learner, no_digit: bool) -> dict[str, float]:
    "Return the calibration of the probabilities on the held-out images."
    with learn.no_bar():
        outputs, labels = (t.numpy() for t in learn.get_preds(dl=learn.dls.valid, act=noop))
    return calibrate(outputs, labels, no_digit)


def _collect_results(learn: Learner, recipe: Recipe) -> dict[str, Any]:
    "Return losses, accuracy and its 95 % interval after the last epoch, and any calibration."
    last = dict(zip(learn.recorder.metric_names[1:-1], learn.recorder.values[-1], strict=True))
    n = len(learn.dls.valid_ds)
    interval = accuracy_interval(round(last["accuracy"] * n), n)
    _warn_of_doubts(learn, interval, recipe)
    results = {"accuracy": last["accuracy"], "accuracy_interval_95": list(interval),
               "validation_images": n, "validation_loss": last["valid_loss"],
               "training_loss": last["train_loss"],
               "validated_on": learn.dls.validated_on}
    if recipe.holdout:
        results["calibration"] = _calibrate(learn, bool(recipe.non_digits))
    elif recipe.start:
        start = open_start(recipe.start, recipe.runs)
        if start.vocab == list(learn.dls.vocab):  # nothing is held out to calibrate it again
            results["calibration"] = {"temperature": start.temperature,
                                      "threshold": start.threshold}
    results["form"] = "mnist" if _in_mnist_form(learn.dls) else "as it comes"
    results["parameters"] = sum(p.numel() for p in learn.model.parameters())
    return results


def _in_mnist_form(dls: DataLoaders, n: int = 200) -> bool:
    "Return whether `n` of the training images are in MNIST's form."
    items = dls.train_ds.items
    images = [np.asarray(PILDigit.create(item)) for item in items[::max(1, len(items) // n)]]
    return len({image.shape for image in images}) == 1 and is_in_mnist_form(np.stack(images))


def _warn_of_doubts(learn: Learner, interval: tuple[float, float], recipe: Recipe) -> None:
    "Warn if a network cannot have learned much, and say what to try."
    steps = len(learn.recorder.losses)
    classes = Counter(map(item_label, learn.dls.valid_ds.items))
    commonest, count = classes.most_common(1)[0]
    if interval[0] <= count / classes.total():
        warnings.warn(
            f"the network is hardly better than one that always says {commonest}; try more epochs, "
            f"or another learning rate than lr={recipe.lr:g} (see digitfast lr-find)", stacklevel=3)
    if steps < LEAST_STEPS:
        epochs = -(-LEAST_STEPS // len(learn.dls.train))
        smaller = max(1, min(recipe.bs, len(learn.dls.train_ds) // 20))
        or_smaller = f", or smaller batches: bs={smaller}" if smaller < recipe.bs else ""
        count = "1 step" if steps == 1 else f"{steps} steps"
        warnings.warn(f"the network was trained for only {count}, and most need {LEAST_STEPS} or "
                      f"more; try epochs={epochs}{or_smaller}", stacklevel=3)
