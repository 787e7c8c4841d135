"""The settings of a training, each defined once, without torch and fastai.

The arguments of `train_run`, the options of `digitfast fit` and the keys of settings.ini are made
from the fields of `Recipe`.
"""
import os
from dataclasses import Field, dataclass, field, fields
from math import inf
from numbers import Integral, Real
from types import NoneType
from typing import Any, get_args

from digitfast.errors import BadSetting
from digitfast.registry import (
    ARCHITECTURES,
    DATA_SETS,
    LOGS,
    OPTIMIZERS,
    PRECISIONS,
    SCHEDULES,
    unknown,
)


def _setting(default: Any, help: str, option: str | None = None) -> Any:
    "Return a field with its `--help` text, which leaves out the default, and its option's name."
    return field(default=default, metadata={"help": help, "option": option})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings of a training.

    What depends on the digits, the network or the machine is checked later.

    Raises: `BadSetting` for a value of another type or out of range, `UnknownName` for an unknown
    schedule or precision.
    """

    source: str = _setting("mnist", (
        f"Digits: {', '.join(DATA_SETS)}; a fastai name such as MNIST_SAMPLE; a folder of class "
        "folders, or one with training/ and testing/ (or train/ and val/, valid/ or test/) that "
        "hold them; Kaggle's train.csv; a folder of IDX files; Keras' .npz; an archive of any of "
        "these (.zip, .tar.gz, …), or its URL."))
    arch: str = _setting("digitnet", (
        f"Architecture: {', '.join(ARCHITECTURES)}; also any other of torchvision or, if it is "
        "installed, timm."))
    start: str | None = _setting(None, (
        "Start from the weights of a trained network: name or folder of a run, a .safetensors, or "
        "reader (bundled with digitfast). Architecture and size are then its; where the classes "
        "differ, the last layer is new. Default: random weights."), "--from")
    freeze_epochs: int | None = _setting(None, (
        "With --from: train the last layer alone for so many epochs first. Default: 1 if it is "
        "new, otherwise 0."))
    replay: float = _setting(0.0, (
        "With --from reader: part of the images of an epoch, 0 to 0.95, that are MNIST's, so "
        "that nothing is forgotten; MNIST's test images validate. Try 0.5; 0 for none."))
    epochs: int = _setting(1, "Passes over the training images, at least 1.")
    bs: int = _setting(128, "Batch size, over all processes.")
    lr: float | None = _setting(None, (
        "Learning rate, above 0; with one_cycle the highest one. The number of processes does not "
        "change it. Default: 0.015; 0.002 with --from; 0.0002 with --replay."))
    opt: str = _setting("adam", f"Optimiser: {', '.join(OPTIMIZERS)}.")
    schedule: str = _setting(
        "one_cycle", f"Learning rate over time: {' or '.join(SCHEDULES)}.")
    mom: float | None = _setting(
        None, "Momentum, 0 to below 1. Default: the optimiser's and schedule's.")
    wd: float | None = _setting(None, "Weight decay, 0 or more. Default: the optimiser's.")
    augment: float | None = _setting(None, (
        "Rotate, shear, zoom and shift the training images differently in each epoch: 1 for up to "
        "20° and 15 %, 0 for not at all. Default: 0, with --replay 0.5."))
    pen: float = _setting(0.0, (
        "Part of the training images, 0 to 1, that get other strokes, a coarser resolution, traces "
        "of ruled lines and the like."))
    non_digits: float = _setting(0.0, (
        "Letters, scribbles and pieces of digits to add per digit in training, 0 to 1: the network "
        "learns to say \"no digit\"."))
    label_smoothing: float = _setting(0.05, (
        "Part of the target probability that all classes share, 0 for none."))
    ema: float = _setting(0.0, (
        "Use a running mean of the weights with this decay, such as 0.999, instead of the last "
        "weights; 0 for none."))
    precision: str = _setting("auto", (
        f"Floating-point format of the training passes: {', '.join(PRECISIONS)}; auto is bf16 or "
        "fp16 where that is fast. Validation is in fp32."))
    holdout: float = _setting(0.0, (
        "Validate on this part of the training images, such as 0.1, instead of on the test "
        "images; 0 for none."))
    size: int = _setting(28, "Side of the images that the network sees, in pixels.")
    device: str | None = _setting(None, (
        "Where the network runs: cpu, cuda, cuda:1, mps. Default: a GPU if there is one."))
    seed: int = _setting(42, "Random seed for the weights, the order and the held-out images.")
    name: str | None = _setting(None, (
        "Name of the run folder; a number is added if it is taken. "
        "Default: the named run's or the architecture's."))
    runs: str = _setting("runs", "Folder of the run folders.")
    log: str | None = _setting(None, (
        f"Also write curves for {', '.join(LOGS)}, into a folder of the run folder. history.csv "
        "and steps.csv are always written. Default: none."))

    def __post_init__(self):
        for setting in fields(self):
            object.__setattr__(self, setting.name, _typed(setting, getattr(self, setting.name)))
        object.__setattr__(self, "runs", os.path.expanduser(self.runs))
        if self.name is not None and not self.name.isprintable():
            raise BadSetting(f"name must be printable and on one line, not {self.name!r}")
        check_training(self.epochs, self.lr, self.schedule, self.precision)
        check_seed(self.seed)
        if self.wd is not None and not 0 <= self.wd < inf:
            raise BadSetting(f"wd must be 0 or more, not {self.wd}")
        if self.mom is not None and not 0 <= self.mom < 1:
            raise BadSetting(f"mom must be 0 to below 1, such as 0.9, not {self.mom}")
        if self.start is None and (self.replay or self.freeze_epochs):
            raise BadSetting("replay and freeze_epochs need a network to start from, such as "
                             "start='reader'")
        if not 0 <= self.replay <= 0.95:
            raise BadSetting(f"replay must be 0 to 0.95, such as 0.5, not {self.replay}")
        if self.replay and self.holdout:
            raise BadSetting("replay validates on MNIST's test images; leave out holdout")
        if self.freeze_epochs is not None and self.freeze_epochs < 0:
            raise BadSetting(f"freeze_epochs must be 0 or more, not {self.freeze_epochs}")
        if self.lr is None:
            object.__setattr__(self, "lr",
                               0.0002 if self.replay else 0.002 if self.start else 0.015)
        if self.augment is None:
            object.__setattr__(self, "augment", 0.5 if self.replay else 0.0)
        if not 0 <= self.non_digits <= 1:
            raise BadSetting("non_digits must be 0 to 1 (non-digits per digit), such as 0.2, "
                             f"not {self.non_digits}")


def _typed(setting: Field, value: Any) -> Any:
    "Return `value` as the type of `setting`: of a path its text, of numpy's numbers Python's."
    kinds = get_args(setting.type) or (setting.type,)
    if value is None and NoneType in kinds:
        return None
    if str in kinds and isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    if int in kinds and isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    if float in kinds and isinstance(value, Real) and not isinstance(value, bool):
        return float(value)
    kind = {str: "text", int: "a whole number", float: "a number"}[kinds[0]]
    raise BadSetting(f"{setting.name} must be {kind}, not {value!r}")


def check_training(
    epochs: int,
    lr: float | slice | None,
    schedule: str,
    precision: str,
) -> None:
    "Raise `BadSetting` or `UnknownName` for settings that `train_learner` does not accept."
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    if schedule not in SCHEDULES:
        raise unknown("schedule", schedule, SCHEDULES)
    if not (isinstance(epochs, Integral) and epochs >= 1):
        raise BadSetting(f"epochs must be a whole number of at least 1, not {epochs!r}")
    if isinstance(lr, slice) and lr.stop is None:
        raise BadSetting(f"lr must be a number or slice(lowest, highest), not {lr!r}")
    for rate in (lr.start, lr.stop) if isinstance(lr, slice) else (lr,):
        if rate is not None and not (isinstance(rate, Real) and 0 < rate < inf):
            raise BadSetting(f"lr must be a number above 0, such as 0.003, not {lr!r}")


def check_seed(seed: int) -> None:
    "Raise `BadSetting` for a seed that numpy does not accept."
    if not (isinstance(seed, Integral) and 0 <= seed < 2**32):
        raise BadSetting(f"seed must be a whole number from 0 to {2**32 - 1}, not {seed!r}")
