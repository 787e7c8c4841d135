"""A run: train a network on digits by a recipe, and keep all results in one folder."""
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

import torch
from fastai.learner import Learner
from fastcore.meta import delegates
from torch import nn

from digitfast.errors import BadData, BadSetting, Diverged
from digitfast.models.architectures import is_named
from digitfast.registry import log_callback
from digitfast.runs.checkpoints import checkpointed
from digitfast.runs.folders import (
    CHECKPOINTS,
    SUMMARY,
    Run,
    is_unfinished,
    new_folder,
    only_process,
    unfinished_folder,
)
from digitfast.runs.prepare import Own, prepare
from digitfast.runs.results import write_results
from digitfast.runs.settings import FILE, read_settings, write_settings
from digitfast.runs.start import train_last_layer
from digitfast.training.cpu_threads import fitting_threads
from digitfast.training.processes import (
    check_shares,
    gathered,
    is_first,
    joined,
    launched,
    on_first_process,
    process_count,
)
from digitfast.training.recipe import Recipe
from digitfast.training.train import train_learner


@delegates(Recipe)
def train_run(
    source: str = Recipe.source,  # a name, folder or file, as for `digit_dls`
    arch: str | nn.Module = Recipe.arch,  # name of the architecture, or a network of one's own
    cbs=None,  # further callbacks of the training
    batch_tfms=None,  # further transforms of a batch, which only training images may need
    **kwargs,  # the other settings: fields of `Recipe`
) -> Run:
    """Train a network and return the run, with its results in a new folder.

    The folder gets the network twice (learner.pkl, model.safetensors), settings.ini, history.csv,
    steps.csv and, last, summary.json: a folder without one is not a finished run. A network of
    one's own is written as model.onnx as well, which answers without its code, if onnx is
    installed. Nothing is ever overwritten. During training it holds checkpoints, from which
    `resume_run` resumes; if training fails or is interrupted before the first one, the folder is
    removed.

    If a launcher has started several processes, all train and return the run; only the first
    prints and writes.

    Raises: any `DigitError`, before training starts if possible.
    """
    start = time.perf_counter()
    own = Own(network=None if isinstance(arch, str) else arch, cbs=cbs, batch_tfms=batch_tfms)
    own.check()
    recipe = Recipe(source=source, arch=own.name or arch, **kwargs)
    check_shares(recipe.bs)
    with joined():
        learn, cbs, recipe = prepare(recipe, own)
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
    arch: nn.Module | None = None,  # the network, if it was one of one's own
    cbs=None,  # as for `train_run`
    batch_tfms=None,
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
            own = Own(network=arch, cbs=cbs, batch_tfms=batch_tfms)
            if own.name not in ("", recipe.arch):
                raise BadSetting(f"{folder} trains {recipe.arch}, not {own.name}")
            if not (own.name or is_named(recipe.arch)):
                raise BadSetting(f"{folder} trains a network of one's own; resume it with "
                                 f"resume_run({str(folder)!r}, arch={recipe.arch}(…))")
            learn, cbs, recipe = prepare(recipe, own, fetch=False)
            run = _train(folder, recipe, learn, cbs, start)
        _remove_checkpoints(folder)
        return run


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    "While the context lasts, let only this group of processes train the run in `folder`."
    with ExitStack() as stack:
        on_first_process(stack.enter_context)(only_process(folder))
        yield


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
        with fitting_threads():
            train_last_layer(learn, recipe)
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
        return write_results(folder, recipe, summary, learn, start - checkpoints.before)
    except BaseException as e:
        needs_change = isinstance(e, (BadSetting, Diverged))  # resuming would fail again
        if is_unfinished(folder) and not needs_change:
            command = (launched(f"fit --resume {folder}") if is_named(recipe.arch)
                       else f"resume_run({str(folder)!r}, arch={recipe.arch}(…))")
            e.add_note(f"resume with: {command}")
        raise


@on_first_process
def _remove_checkpoints(folder: Path) -> None:
    "Remove the checkpoints of a finished run, as far as possible, after their lock is released."
    with suppress(OSError):
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)


