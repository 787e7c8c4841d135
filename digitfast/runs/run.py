"""A run: digits, a network and a recipe joined, and what comes of it in a folder of its own."""
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
from digitfast.data.folders import HELD_OUT, find_splits, split_name
from digitfast.data.loaders import digit_dls
from digitfast.data.mnist_form import SIDE
from digitfast.data.resident import ResidentDL
from digitfast.data.sources import digits_path
from digitfast.errors import BadData, BadSetting, Diverged
from digitfast.evaluation.accuracy import accuracy_interval
from digitfast.files import whole_file
from digitfast.inference.calibration import calibrate
from digitfast.inference.header import MOST_CLASSES
from digitfast.inference.pickles import save_learner
from digitfast.inference.predictor import predictor_of, save_predictor
from digitfast.registry import log_callback, optimizer
from digitfast.runs.checkpoints import checkpointed
from digitfast.runs.environment import circumstances
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
    source: str = Recipe.source,  # what `digits_path` takes: "mnist", a fastai name, a URL, a folder
    arch: str = Recipe.arch,  # name of the architecture
    **kwargs,  # the other settings: fields of `Recipe`
) -> Run:
    """Train a network from digits to a run folder: its network twice, settings, history, steps and summary.json.

    Checkpoints are kept in it while it trains: `resume_run` goes on from the last one. The folder of a run that fails
    or is interrupted before the first one is removed. summary.json is written last, so a folder without one is no
    finished run. Nothing is ever overwritten.

    Of several processes that a launcher has started, all train, the first one prints and writes, and all are given the
    run. Raises: any `DigitError`, before training starts where it can be known by then.
    """
    start = time.perf_counter()
    recipe = Recipe(source=source, arch=arch, **kwargs)
    check_shares(recipe.bs)
    with joined():
        learn, cbs, recipe = _prepare(recipe)
        folder = on_first_process(new_folder)(Path(recipe.runs), recipe.name or recipe.arch)
        recipe = replace(recipe, name=folder.name)
        try:
            with _kept_from_others(folder):
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

    On the CPU in fp32 it comes to the same weights, bit for bit, as if it had never stopped. A damaged checkpoint is
    reported, and the previous one is used. Raises: `RunNotFound`, `BadSetting` for a run that is finished, that
    another process trains, or whose settings, data or number of processes have changed.
    """
    start = time.perf_counter()
    with joined():
        folder = on_first_process(unfinished_folder)(run, runs)
        with _kept_from_others(folder):
            settings = on_first_process(read_settings)(path=folder / FILE)
            recipe = Recipe(**{**settings, "name": folder.name})
            learn, cbs, recipe = _prepare(recipe, fetch=False)
            run = _train(folder, recipe, learn, cbs, start)
        _remove_checkpoints(folder)
        return run


@contextmanager
def _kept_from_others(folder: Path) -> Iterator[None]:
    "While the context lasts, nobody but the processes that work together can train the run in `folder`."
    with ExitStack() as stack:
        on_first_process(stack.enter_context)(only_process(folder))
        yield


@first_process_first
def _prepare(recipe: Recipe, fetch: bool = True) -> tuple[Learner, list, Recipe]:
    "A `Learner`, the callbacks of its training, and `recipe` with an absolute source."
    opt_func, moms = _optimizer(recipe.opt, recipe.mom)
    if recipe.log:
        log_callback(recipe.log)  # a missing package is told now, not when all images are read
    batch_tfms = [*([RandomAffine(recipe.augment)] if recipe.augment else []),
                  *([RandomPen(recipe.pen)] if recipe.pen else [])]
    cbs = [History(HISTORY), *([LabelSmoothing(recipe.label_smoothing)] if recipe.label_smoothing else []),
           *([WeightAverage(recipe.ema)] if recipe.ema else [])]
    path = digits_path(recipe.source, fetch)
    if path == Path(recipe.source).expanduser().absolute():
        recipe = replace(recipe, source=str(path))  # so that the run can be repeated from another folder
    dls = digit_dls(path, bs=recipe.bs, holdout=recipe.holdout, seed=recipe.seed, size=recipe.size,
                    batch_tfms=batch_tfms)
    if len(dls.vocab) > MOST_CLASSES:
        raise BadSetting(f"{path} has {len(dls.vocab):,} classes; a run can have {MOST_CLASSES:,} at most")
    learn = digit_learner(dls, recipe.arch, opt_func=opt_func, wd=recipe.wd, **moms)
    choose_precision(recipe.precision, learn.model, dls.device)  # likewise what cannot be had, before there is a folder
    if recipe.non_digits:
        cbs.append(NonDigits(_non_digits(dls, recipe.seed), recipe.non_digits))
    return learn, cbs, recipe


def _train(folder: Path, recipe: Recipe, learn: Learner, cbs: list, start: float) -> Run:
    "Train `learn`, from its last checkpoint on if there is one, and write down what came of it."
    dls = learn.dls
    learn.path = folder
    if recipe.log:
        cbs.append(log_callback(recipe.log)(folder / recipe.log, trace_model=False, log_preds=False))
    checksum = dls.checksum()
    if len(set(gathered((checksum, dls.train.n, dls.valid.n)))) > 1:
        raise BadData("the processes have different images; on several machines each needs a copy of the same folder")
    known = asdict(replace(recipe, name=None, runs=""))  # a folder can be moved
    ready = time.perf_counter()
    try:
        facts = {**known, "processes": process_count(), "the checksum of the data": checksum}
        with fitting_threads(), checkpointed(learn, folder / CHECKPOINTS, facts) as checkpoints:
            train_learner(learn, recipe.epochs, recipe.lr, recipe.schedule, recipe.precision, cbs=cbs)
            trained, threads = checkpoints.seconds, torch.get_num_threads()
        summary = {"run": folder.name, "settings": asdict(recipe), "processes": process_count(), "threads": threads,
                   "seconds": {"preparation": round(ready - start, 2), "training": round(trained, 2)},
                   "data": {"path": str(dls.path), "sha256": checksum, "training_images": len(dls.train_ds)}}
        return _write_results(folder, recipe, summary, learn, start - checkpoints.before)
    except BaseException as e:
        if is_unfinished(folder) and not isinstance(e, (BadSetting, Diverged)):  # which say what has to be changed
            e.add_note(f"resume with: {launched(f'fit --resume {folder}')}")
        raise


@on_first_process
def _write_results(folder: Path, recipe: Recipe, summary: dict[str, Any], learn: Learner, start: float) -> Run:
    """Write the network, as fastai's .pkl and as what can hold no code, the steps and at last the summary, and return
    the run. `start` is the time at which it began, on the clock of `time.perf_counter`."""
    write_steps(folder, learn.recorder.lrs, learn.recorder.losses)
    summary = {**summary, **_results(learn, recipe),
               "precision": choose_precision(recipe.precision, learn.model, learn.dls.device),
               **circumstances(learn.dls.device)}
    pickled = save_learner(learn, folder / LEARNER)
    save_predictor(predictor_of(learn, summary), folder / MODEL)
    summary["seconds"]["total"] = round(time.perf_counter() - start, 2)
    with whole_file(folder / SUMMARY) as part:
        part.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return Run(folder, summary, sha256(pickled.read_bytes()).hexdigest())


@on_first_process
def _remove_checkpoints(folder: Path) -> None:
    "Remove the checkpoints of a finished run, once nobody holds their lock. What cannot be removed stays."
    with suppress(OSError):
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)


def _optimizer(opt: str, mom: float | None) -> tuple:
    "The `opt_func`, and the `Learner` arguments that keep schedules at the same momentum."
    opt_func = optimizer(opt)
    if mom is None:
        return opt_func, {}
    if "mom" not in inspect.signature(opt_func).parameters:
        raise BadSetting(f"the optimiser {opt!r} has no momentum; leave mom out, or take sgd or adam")
    return partial(opt_func, mom=mom), {"moms": (mom, mom, mom)}


def _non_digits(dls: DataLoaders, seed: int) -> torch.Tensor:
    "Non-digits in the form of the training images, as many as there are of those. Raises: `BadSetting`."
    ours = isinstance(dls.train, ResidentDL) and dls.train.pixels.shape[1] == SIDE
    if not ours or list(dls.vocab) != list("0123456789"):
        raise BadSetting(f"non_digits wants the ten digits, as images of size={SIDE} that are kept in memory; "
                         f"these are {', '.join(dls.vocab)}")
    images, labels = dls.train.pixels.cpu().numpy(), dls.train.labels.cpu().numpy()
    return torch.from_numpy(non_digit_images(len(images), images, labels, np.random.default_rng(seed)))


def _calibration(learn: Learner, no_digit: bool) -> dict[str, float]:
    "What held-out images say of the probabilities."
    with learn.no_bar():
        outputs, labels = (t.numpy() for t in learn.get_preds(dl=learn.dls.valid, act=noop))
    return calibrate(outputs, labels, no_digit)


def _results(learn: Learner, recipe: Recipe) -> dict[str, Any]:
    "Losses and accuracy of the last epoch, the accuracy with its 95 % interval, and what held-out images say."
    last = dict(zip(learn.recorder.metric_names[1:-1], learn.recorder.values[-1], strict=True))
    n = len(learn.dls.valid_ds)
    interval = accuracy_interval(round(last["accuracy"] * n), n)
    _warn_of_doubts(learn, interval, recipe)
    split = find_splits(learn.dls.path, need_valid=not recipe.holdout)[1]
    return {"accuracy": last["accuracy"], "accuracy_interval_95": list(interval), "validation_images": n,
            "validation_loss": last["valid_loss"], "training_loss": last["train_loss"],
            "validated_on": HELD_OUT if recipe.holdout else split_name(split),
            **({"calibration": _calibration(learn, bool(recipe.non_digits))} if recipe.holdout else {}),
            "parameters": sum(p.numel() for p in learn.model.parameters())}


def _warn_of_doubts(learn: Learner, interval: tuple[float, float], recipe: Recipe) -> None:
    "Say so where a network cannot have learned much, and what to try."
    steps, per_epoch = len(learn.recorder.losses), len(learn.dls.train)
    classes = Counter(file.parent.name for file in learn.dls.valid_ds.items)
    commonest, count = classes.most_common(1)[0]
    if interval[0] <= count / classes.total():
        warnings.warn(f"the network is hardly better than one that always says {commonest}; try more epochs, or "
                      f"another learning rate than lr={recipe.lr:g} (see digitfast lr-find)", stacklevel=3)
    if steps < LEAST_STEPS:
        smaller = max(1, min(recipe.bs, len(learn.dls.train_ds) // 20))
        count = "1 step" if steps == 1 else f"{steps} steps"
        warnings.warn(f"the network was trained for only {count}, and most need {LEAST_STEPS} or more; "
                      f"try epochs={-(-LEAST_STEPS // per_epoch)}"
                      + (f", or smaller batches: bs={smaller}" if smaller < recipe.bs else ""), stacklevel=3)
