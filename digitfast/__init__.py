"""From digits in any form to a classifier that you can trust, in seconds, in fastai's own words."""
import warnings
from importlib import import_module

__version__ = "0.1.0"

# module: its public names; a module is imported when one of its names is first used
_HOMES = {
    "errors": ["DigitError", "DataNotFound", "BadData", "BadImage", "UnknownName", "BadSetting",
               "RunNotFound", "Diverged", "ProcessEnded"],
    "training.processes": ["joined"],
    "data.sources": ["digits_path"],
    "data.images": ["PILDigit"],
    "data.documents": ["document_pages"],
    "data.mnist_form": ["mnist_form"],
    "data.augment": ["RandomAffine", "RandomPen"],
    "models.digit_nets": ["digit_net", "digit_net_deep", "simple_net", "article_net"],
    "training.losses": ["NLLLossFlat"],
    "training.optimizers": ["BasicOptim", "FusedAdam"],
    "data.loaders": ["digit_dls"],
    "training.learners": ["digit_learner", "digitnet_learner", "digitnet_deep_learner",
                          "simple_learner", "article_learner"],
    "training.callbacks": ["History", "WeightAverage", "LabelSmoothing", "NonDigits"],
    "training.recipe": ["Recipe"],
    "training.train": ["train_learner"],
    "evaluation.evaluate": ["evaluate_learner", "predict_files"],
    "inference.pickles": ["save_learner", "open_learner"],
    "inference.predictor": ["Predictor", "open_predictor", "predictor_of", "save_predictor"],
    "reading.reader": ["read_digit", "read_digits"],
    "runs.folders": ["find_run", "list_runs"],
    "runs.export": ["export_run"],
    "reading.figures": ["draw_boxes", "draw_steps"],
    "runs.run": ["train_run", "resume_run"],
    "report.page": ["write_report"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'digitfast' has no attribute {name!r}")
    with warnings.catch_warnings():
        # raised by fastai's own use of it
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
        value = getattr(import_module(f"digitfast.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)
