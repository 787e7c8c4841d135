"""Names of architectures, optimisers, schedules and logs, and the objects they stand for.

An entry is `name: "module:attribute"`, like an entry point, so that listing the names (for
`--help` or an error) imports neither torch nor fastai.
"""
import difflib
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from digitfast.errors import BadSetting, UnknownName

_TORCHVISION = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
                "squeezenet1_0", "squeezenet1_1")
_XRESNET = ("xresnet18", "xresnet34", "xresnet50", "xresnet101", "xresnet152")

#: Architectures for 28×28 digits; `digit_learner` also finds others of torchvision and timm.
ARCHITECTURES: dict[str, str] = {
    "digitnet": "digitfast.models.architectures:build_digitnet",
    "digitnet_deep": "digitfast.models.architectures:build_digitnet_deep",
    "simple": "digitfast.models.architectures:build_simple",
    "article": "digitfast.models.architectures:build_article",
    **{name: f"torchvision.models:{name}" for name in _TORCHVISION},
    **{name: f"fastai.vision.models.xresnet:{name}" for name in _XRESNET},
}

#: Parts of MNIST: the classes, and the most training and test images of each.
MNIST_PARTS: dict[str, tuple[str, int | None, int | None]] = {
    "mnist-sample": ("37", None, None),
    "mnist-tiny": ("0123456789", 50, 20),
}

#: Other data sets: torchvision's class, and its arguments for the training and the test split.
TORCHVISION_SETS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "fashion": ("FashionMNIST", {"train": True}, {"train": False}),
    "kmnist": ("KMNIST", {"train": True}, {"train": False}),
    "qmnist": ("QMNIST", {"train": True}, {"train": False}),
    **{f"emnist-{split}": ("EMNIST", {"split": split, "train": True},
                           {"split": split, "train": False})
       for split in ("digits", "letters", "balanced")},
    "usps": ("USPS", {"train": True}, {"train": False}),
    "svhn": ("SVHN", {"split": "train"}, {"split": "test"}),
}

DATA_SETS = ("mnist", *MNIST_PARTS, *TORCHVISION_SETS)

OPTIMIZERS: dict[str, str] = {
    "adam": "digitfast.training.optimizers:FusedAdam",
    "sgd": "fastai.optimizer:SGD",
    "basic": "digitfast.training.optimizers:BasicOptim",
    "rmsprop": "fastai.optimizer:RMSProp",
    "radam": "fastai.optimizer:RAdam",
    "qhadam": "fastai.optimizer:QHAdam",
    "larc": "fastai.optimizer:Larc",
    "lamb": "fastai.optimizer:Lamb",
    "ranger": "fastai.optimizer:ranger",
}

#: Floating-point formats of the training passes.
PRECISIONS = ("auto", "fp32", "bf16", "fp16")

#: fastai's callbacks that log curves, by the name of the package, also that of the log's folder.
LOGS: dict[str, str] = {"tensorboard": "fastai.callback.tensorboard:TensorBoardCallback"}

#: The method of `Learner` that trains with each schedule.
SCHEDULES: dict[str, str] = {"one_cycle": "fit_one_cycle", "constant": "fit"}


def resolve(entry: str) -> Any:
    'Return the object at "module:attribute".'
    module, _, attribute = entry.partition(":")
    return getattr(import_module(module), attribute)


def unknown(kind: str, name: str, known: Iterable[str], hint: str = "") -> UnknownName:
    "Return an error for an unknown `name` that suggests the nearest known names and lists all."
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=3)
    suggestion = f" Did you mean {' or '.join(near)}?" if near else ""
    return UnknownName(f"unknown {kind} {name!r}.{suggestion} Known: {', '.join(known)}.{hint}")


def optimizer(name: str) -> Any:
    "Return the `opt_func` registered under `name`. Raises: `UnknownName`."
    if name not in OPTIMIZERS:
        raise unknown("optimiser", name, OPTIMIZERS)
    return resolve(OPTIMIZERS[name])


def log_callback(name: str) -> Any:
    """Return the fastai callback registered under `name`.

    Raises: `UnknownName`, `BadSetting` if its package is missing.
    """
    if name not in LOGS:
        raise unknown("log", name, LOGS)
    try:
        return resolve(LOGS[name])
    except ImportError as e:
        raise BadSetting(f"log={name!r} needs the package {name}: pip install {name}") from e
