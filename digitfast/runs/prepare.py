"""Everything that a training needs, from its recipe, before there is a run folder."""
import inspect
import math
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastcore.basics import listify
from torch import nn

from digitfast.data.augment import RandomAffine, RandomPen
from digitfast.data.devices import named_device
from digitfast.data.loaders import digit_dls
from digitfast.data.mnist_form import SIDE
from digitfast.data.resident import ResidentDL
from digitfast.errors import BadSetting
from digitfast.files import expanded
from digitfast.inference.header import MOST_CLASSES
from digitfast.inference.predictor import check_plain, predictor_of
from digitfast.models.architectures import is_named
from digitfast.registry import DATA_SETS, log_callback, optimizer
from digitfast.runs.digits import open_start, run_digits
from digitfast.runs.folders import HISTORY
from digitfast.runs.start import start_from, starting_recipe
from digitfast.synthetic.non_digits import non_digits as non_digit_images
from digitfast.training.callbacks import History, LabelSmoothing, NonDigits, WeightAverage
from digitfast.training.learners import digit_learner
from digitfast.training.precision import choose_precision
from digitfast.training.processes import first_process_first
from digitfast.training.recipe import Recipe


@dataclass(frozen=True, eq=False, kw_only=True)
class Own:
    "What a training in Python has that no settings.ini can hold."
    network: Any = None  # torch module
    cbs: Any = None
    batch_tfms: Any = None

    @property
    def name(self) -> str:
        "The name of the network's class."
        return "" if self.network is None else type(self.network).__name__

    def check(self) -> None:
        "Raise `BadSetting` for a network that a run folder cannot hold."
        if self.network is None:
            return
        if not isinstance(self.network, nn.Module):
            raise BadSetting("arch must be the name of an architecture or a torch module, not "
                             f"{self.network!r}")
        if is_named(self.name) or not self.name.isascii():
            raise BadSetting(f"the network's class is called {self.name}; give it another name, of "
                             "ASCII letters, that no architecture has")
        weights = [weight.data_ptr() for weight in self.network.state_dict().values()
                   if weight.numel()]
        if len(set(weights)) < len(weights):
            raise BadSetting(f"{self.name} uses some weights in two places, which a run folder "
                             "cannot hold; train it with train_learner(digit_learner(dls, arch))")


@first_process_first
def prepare(
    recipe: Recipe,
    own: Own,
    fetch: bool = True,  # fetch a source that is not on disk; only if a person named it
) -> tuple[Learner, list, Recipe]:
    """Return a `Learner`, the callbacks of its training, and `recipe` with all that was open.

    Raises: any `DigitError`; nothing has been written.
    """
    own.check()
    device = named_device(recipe.device)
    opt_func, moms = _choose_optimizer(recipe.opt, recipe.mom)
    if recipe.log:
        log_callback(recipe.log)  # raises if its package is missing, before images are read
    batch_tfms, cbs = _extras(recipe, own)
    start = open_start(recipe.start, recipe.runs) if recipe.start else None
    if start:
        recipe = starting_recipe(recipe, start)
    digits = run_digits(asdict(recipe), start, fetch)
    if expanded(recipe.source).exists() and recipe.source not in DATA_SETS:
        # repeats the run from any working directory
        recipe = replace(recipe, source=str(expanded(recipe.source).absolute()))
    dls = digit_dls(digits, bs=recipe.bs, holdout=recipe.holdout, seed=recipe.seed,
                    size=recipe.size, batch_tfms=batch_tfms, device=device)
    if len(dls.vocab) > MOST_CLASSES:
        raise BadSetting(f"{recipe.source} has {len(dls.vocab):,} classes; "
                         f"a run can have {MOST_CLASSES:,} at most")
    recipe = replace(recipe, holdout=dls.holdout)
    arch = recipe.arch if own.network is None else own.network
    learn = digit_learner(dls, arch, opt_func=opt_func, wd=recipe.wd, **moms)
    if start:
        recipe = start_from(learn, start, recipe)
    if own.batch_tfms:
        check_plain(predictor_of(learn), "a run")  # raises before there is a folder
    choose_precision(recipe.precision, learn.model, dls.device)  # raises before there is a folder
    if recipe.non_digits:
        cbs.append(NonDigits(_draw_non_digits(dls, recipe), recipe.non_digits))
    return learn, cbs, recipe


def _extras(recipe: Recipe, own: Own) -> tuple[list, list]:
    "Return the transforms of a batch and the callbacks that a recipe and a user ask for."
    batch_tfms = []
    if recipe.augment:
        batch_tfms.append(RandomAffine(recipe.augment))
    if recipe.pen:
        batch_tfms.append(RandomPen(recipe.pen))
    cbs: list = [History(HISTORY), *listify(own.cbs)]
    if recipe.label_smoothing:
        cbs.append(LabelSmoothing(recipe.label_smoothing))
    if recipe.ema:
        cbs.append(WeightAverage(recipe.ema))
    return [*batch_tfms, *listify(own.batch_tfms)], cbs


def _choose_optimizer(opt: str, mom: float | None) -> tuple:
    "Return the `opt_func`, and the `Learner` arguments that fix the momentum of schedules."
    opt_func = optimizer(opt)
    if mom is None:
        return opt_func, {}
    if "mom" not in inspect.signature(opt_func).parameters:
        raise BadSetting(f"the optimiser {opt!r} has no momentum; omit mom, or use sgd or adam")
    return partial(opt_func, mom=mom), {"moms": (mom, mom, mom)}


def _draw_non_digits(dls: DataLoaders, recipe: Recipe) -> torch.Tensor:
    """Return the non-digits of all epochs, at most as many as there are training images.

    Raises: `BadSetting` unless these are the ten digits, of `SIDE` pixels and in memory.
    """
    fits = isinstance(dls.train, ResidentDL) and dls.train.pixels.shape[1] == SIDE
    if not fits or list(dls.vocab) != list("0123456789"):
        raise BadSetting(f"non_digits needs the ten digits, as images of size={SIDE} kept in "
                         f"memory; the classes are {', '.join(dls.vocab)}")
    images = dls.train.pixels.cpu().numpy()
    labels = dls.train.labels.cpu().numpy()
    n = math.ceil(len(images) * min(1, recipe.non_digits * recipe.epochs))
    drawn = non_digit_images(n, images, labels, np.random.default_rng(recipe.seed))
    return torch.from_numpy(drawn)
