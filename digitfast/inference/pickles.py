"""Save a fastai `Learner` as a .pkl file, and open it."""
import io
import warnings
from hashlib import sha256
from pathlib import Path

from fastai.learner import Learner, load_learner

from digitfast.errors import BadData, BadSetting, RunNotFound
from digitfast.files import whole_file


def save_learner(
    learn: Learner,  # to export
    path: str | Path,  # of the .pkl
) -> Path:
    """Export `learn` as fastai's `export` does, but atomically: the file is always whole.

    Raises: `OSError`.
    """
    path = Path(path).absolute()
    with whole_file(path) as part:
        try:
            learn.export(part)
        except RuntimeError as e:  # torch raises it when it cannot write
            raise OSError(f"{path} could not be written ({e}); is the disk full?") from e
    return path


def open_learner(
    path: str | Path,  # of a .pkl from `save_learner` or `Learner.export`
    trust: bool = False,  # whether code in the file may be run
    known: str | None = None,  # SHA-256 of a file that you wrote yourself, which needs no `trust`
) -> Learner:
    """Return the `Learner` in a .pkl file, on the CPU, ready to predict.

    A .pkl can run any code when it is opened: trust only files made by you or by people you trust.
    Raises: `RunNotFound`, `BadData`, `BadSetting` for a file that is not trusted.
    """
    path = Path(path)
    if not path.is_file():
        raise RunNotFound(f"{path} is not a file; "
                          "it must be a .pkl from `digitfast fit` or `learn.export()`")
    content = path.read_bytes()  # once, so that what is opened is what was compared
    if not (trust or sha256(content).hexdigest() == known):
        raise BadSetting(
            f"{path} was not opened: a .pkl can run any code. Open a .safetensors, which cannot, "
            "such as the model.safetensors of a run folder; or, if you know who made the .pkl, "
            "say so: --trust at the prompt, trust=True in Python")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*insecure pickle")  # handled above
            return load_learner(io.BytesIO(content))
    except Exception as e:  # a damaged .pkl can raise anything
        raise BadData(f"{path} cannot be opened as a fastai learner ({e}); it is not a learner's "
                      ".pkl, or it was made with other versions of fastai or digitfast") from e
