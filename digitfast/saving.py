"""A trained network as a file, and back."""
import pickle
import warnings
from pathlib import Path

from fastai.learner import Learner, load_learner

from digitfast.errors import BadData, RunNotFound
from digitfast.files import whole_file


def save_learner(
    learn: Learner,  # to export
    path: str | Path,  # of the .pkl
) -> Path:
    "Export `learn` as fastai's `export` does, in one step: a file of that name is always whole. Raises: `OSError`."
    path = Path(path).absolute()
    with whole_file(path) as part:
        try:
            learn.export(part)
        except RuntimeError as e:  # torch's word for it
            raise OSError(f"{path} could not be written, as on a full disk ({e})") from e
    return path


def open_learner(
    path: str | Path,  # of a .pkl from `save_learner` or `Learner.export`
) -> Learner:
    """The `Learner` in a .pkl file, on the CPU, ready to predict.

    A .pkl can run any code when it is opened: open only files that you trust.
    Raises: `RunNotFound`, `BadData`.
    """
    path = Path(path)
    if not path.is_file():
        raise RunNotFound(f"{path} is no file; a .pkl from `digitfast fit` or `learn.export()` is wanted")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*insecure pickle")  # it is said above
            return load_learner(path)
    except (pickle.UnpicklingError, EOFError, AttributeError, ImportError, UnboundLocalError, RuntimeError) as e:
        raise BadData(f"{path} cannot be opened as a fastai learner ({e}); it is no .pkl of a learner, or it was made "
                      "with other versions of fastai or digitfast") from e
