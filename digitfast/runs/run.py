"""A run: train a network on digits by a recipe, and keep all results in one folder."""
import inspect
import json
import shutil
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastcore.basics import noop
from fastcore.meta import delegates

from digitfast.data.augment import RandomAffine, RandomPen
from digitfast.data.forms import open_digits
from digitfast.data.images import PILDigit, item_label
from digitfast.data.loaders import digit_dls
from digitfast.data.mnist_form import SIDE, is_in_mnist_form
from digitfast.data.resident import ResidentDL
from digitfast.errors import BadData, BadSetting, Diverged
from digitfast.evaluation.accuracy import accuracy_interval
from digitfast.files import whole_file
from digitfast.inference.calibration import calibrate
from digitfast.inference.header import MOST_CLASSES
from digitfast.inference.pickles import save_learner
from digitfast.inference.predictor import predictor_of, save_predictor
from digitfast.registry import DATA_SETS, log_callback, optimizer
from digitfast.runs.checkpoints import checkpointed
from digitfast.runs.environment import environment
from digitfast.runs.folders import (
    CHECKPOINTS,
    HISTORY,
    LEARNER,
    MODEL,
    SUMMARY,
    Run,
    is_unfinished,
    new_folder,
    only_process,
    unfinished_folder,
    write_steps,
)
from digitfast.runs.settings import FILE, read_settings, write_settings
from digitfast.synthetic.non_digits import non_digits as non_digit_images
from digitfast.training.callbacks import History, LabelSmoothing, NonDigits, WeightAverage
from digitfast.training.cpu_threads import fitting_threads
from digitfast.training.learners import digit_learner
from digitfast.training.precision import choose_precision
from digitfast.training.processes import (
    check_shares,
    first_process_first,
    gathered,
    is_first,
    joined,
    launched,
    on_first_process,
    process_count,
)
from digitfast.training.recipe import Recipe
from digitfast.training.train import LEAST_STEPS, train_learner


@delegates(Recipe)
def train_run(
    source: str = Recipe.source,  # as for `digits_path`: "mnist", a fastai name, a URL, a folder
    arch: str = Recipe.arch,  # name of the architecture
    **kwargs,  # the other settings: fields of `Recipe`
) -> Run:
    """Train a network and return the run, with its results in a new folder.

    The folder gets the network twice (learner.pkl, model.safetensors), settings.ini, history.csv,
    steps.csv and, last, summary.json: a folder without one is not a finished run. Nothing is ever
    overwritten. During training it holds checkpoints, from which `resume_run` resumes; if training
    fails or is interrupted before the first one, the folder is removed.

    If a launcher has started several processes, all train and return the run; only the first
    prints and writes.

    Raises: any `DigitError`, before training starts if possible.
    """
    start = time.perf_counter()
    recipe = Recipe(source=source, arch=arch, **kwargs)
    check_shares(recipe.bs)
    with joined():
        learn, cbs, recipe = _prepare(recipe)
        folder = on_first_process(new_folder)(Path(recipe.runs), recipe.name or recipe.arch)
        recipe = replace(recipe, name=folder.name)
        try:
            with _locked(folder):
                on_first_process(write_settings)(folder / FILE, folder.name, asdict(recipe))
                run = _train(folder, recipe, learn, cbs, start)
            _remove_checkpoints(folder)
            return run
        except BaseException:
            if is_first() and not is_unfinished(folder) and not (folder / SUMMARY).exists():
                shutil.rmtree(folder, ignore_errors=True)
            raise


def resume_run(
    run: str | Path,  # name of the run in `runs`, or its folder
    runs: str | Path = "runs",  # folder of the run folders
) -> Run:
    """Resume a run that was killed, interrupted or failed, from its last good checkpoint.

    On the CPU in fp32 it ends with bit for bit the weights of a run that never stopped. A damaged
    checkpoint is reported, and the previous one is used.

    Raises: `RunNotFound`; `BadSetting` for a run that is finished, that another process trains, or
    whose settings, data or number of processes have changed.
    """
    start = time.perf_counter()
    with joined():
        folder = on_first_process(unfinished_folder)(run, runs)
        with _locked(folder):
            settings = on_first_process(read_settings)(path=folder / FILE)
            recipe = Recipe(**{**settings, "name": folder.name})
            learn, cbs, recipe = _prepare(recipe, fetch=False)
            run = _train(folder, recipe, learn, cbs, start)
        _remove_checkpoints(folder)
        return run


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    "While the context lasts, let only this group of processes train the run in `folder`."
    with ExitStack() as stack:
        on_first_process(stack.enter_context)(only_process(folder))
        yield


@first_process_first
def _prepare(recipe: Recipe, fetch: bool = True) -> tuple[Learner, list, Recipe]:
    "Return a `Learner`, the callbacks of its training, and `recipe` with an absolute source."
    opt_func, moms = _choose_optimizer(recipe.opt, recipe.mom)
    if recipe.log:
        log_callback(recipe.log)  # raises if its package is missing, before images are read
    batch_tfms = []
    if recipe.augment:
        batch_tfms.append(RandomAffine(recipe.augment))
    if recipe.pen:
        batch_tfms.append(RandomPen(recipe.pen))
    cbs: list = [History(HISTORY)]
    if recipe.label_smoothing:
        cbs.append(LabelSmoothing(recipe.label_smoothing))
    if recipe.ema:
        cbs.append(WeightAverage(recipe.ema))
    digits = open_digits(recipe.source, fetch)
    if Path(recipe.source).expanduser().exists() and recipe.source not in DATA_SETS:
        # repeats the run from any working directory
        recipe = replace(recipe, source=str(Path(recipe.source).expanduser().absolute()))
    dls = digit_dls(digits, bs=recipe.bs, holdout=recipe.holdout, seed=recipe.seed,
                    size=recipe.size, batch_tfms=batch_tfms)
    if len(dls.vocab) > MOST_CLASSES:
        raise BadSetting(f"{recipe.source} has {len(dls.vocab):,} classes; "
                         f"a run can have {MOST_CLASSES:,} at most")
    recipe = replace(recipe, holdout=dls.holdout)
    learn = digit_learner(dls, recipe.arch, opt_func=opt_func, wd=recipe.wd, **moms)
    choose_precision(recipe.precision, learn.model, dls.device)  # raises before there is a folder
    if recipe.non_digits:
        cbs.append(NonDigits(_draw_non_digits(dls, recipe.seed), recipe.non_digits))
    return learn, cbs, recipe


def _train(folder: Path, recipe: Recipe, learn: Learner, cbs: list, start: float) -> Run:
    "Train `learn`, from its last checkpoint if there is one, and write the results."
    dls = learn.dls
    learn.path = folder
    if recipe.log:
        log = log_callback(recipe.log)
        cbs.append(log(folder / recipe.log, trace_model=False, log_preds=False))
    checksum = dls.checksum()
    if len(set(gathered((checksum, dls.train.n, dls.valid.n)))) > 1:
        raise BadData("the processes have different images; "
                      "on several machines each needs a copy of the same folder")
    settings = asdict(replace(recipe, name=None, runs=""))  # a folder can be moved
    ready = time.perf_counter()
    try:
        facts = {**settings, "processes": process_count(), "the checksum of the data": checksum}
        with fitting_threads(), checkpointed(learn, folder / CHECKPOINTS, facts) as checkpoints:
            train_learner(learn, recipe.epochs, recipe.lr, recipe.schedule, recipe.precision,
                          cbs=cbs)
            trained = checkpoints.seconds
            threads = torch.get_num_threads()
        summary = {
            "run": folder.name, "settings": asdict(recipe), "processes": process_count(),
            "threads": threads,
            "seconds": {"preparation": round(ready - start, 2), "training": round(trained, 2)},
            "data": {"path": str(dls.path), "sha256": checksum,
                     "training_images": len(dls.train_ds)}}
        return _write_results(folder, recipe, summary, learn, start - checkpoints.before)
    except BaseException as e:
        needs_change = isinstance(e, (BadSetting, Diverged))  # resuming would fail again
        if is_unfinished(folder) and not needs_change:
            e.add_note(f"resume with: {launched(f'fit --resume {folder}')}")
        raise


@on_first_process
def _write_results(
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
    save_predictor(predictor_of(learn, summary), folder / MODEL)
    summary["seconds"]["total"] = round(time.perf_counter() - start, 2)
    with whole_file(folder / SUMMARY) as part:
        part.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return Run(folder, summary, sha256(pickled.read_bytes()).hexdigest())


@on_first_process
def _remove_checkpoints(folder: Path) -> None:
    "Remove the checkpoints of a finished run, as far as possible, after their lock is released."
    with suppress(OSError):
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)


def _choose_optimizer(opt: str, mom: float | None) -> tuple:
    "Return the `opt_func`, and the `Learner` arguments that fix the momentum of schedules."
    opt_func = optimizer(opt)
    if mom is None:
        return opt_func, {}
    if "mom" not in inspect.signature(opt_func).parameters:
        raise BadSetting(f"the optimiser {opt!r} has no momentum; omit mom, or use sgd or adam")
    return partial(opt_func, mom=mom), {"moms": (mom, mom, mom)}


def _draw_non_digits(dls: DataLoaders, seed: int) -> torch.Tensor:
    """Return as many non-digits as there are training images, in their form.

    Raises: `BadSetting` unless these are the ten digits, of `SIDE` pixels and in memory.
    """
    fits = isinstance(dls.train, ResidentDL) and dls.train.pixels.shape[1] == SIDE
    if not fits or list(dls.vocab) != list("0123456789"):
        raise BadSetting(f"non_digits needs the ten digits, as images of size={SIDE} kept in "
                         f"memory; the classes are {', '.join(dls.vocab)}")
    images = dls.train.pixels.cpu().numpy()
    labels = dls.train.labels.cpu().numpy()
    drawn = non_digit_images(len(images), images, labels, np.random.default_rng(seed))
    return torch.from_numpy(drawn)


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
