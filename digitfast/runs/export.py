"""Export of a run's network to one file."""
import shutil
from pathlib import Path

import numpy as np

from digitfast.data.pictures import fit_square, read_grey
from digitfast.errors import BadSetting
from digitfast.files import whole_file
from digitfast.inference.predictor import MODEL, OWN_MODEL, SUFFIXES, Predictor
from digitfast.runs.folders import LEARNER, Run, find_run


def export_run(
    name: str | Path,  # of a run, or its folder
    to: str | Path | None = None,  # .safetensors, .onnx or .pkl; None: the run's name.safetensors
    runs: str | Path = "runs",  # folder of the run folders
    int8: bool = False,  # whether an .onnx computes in 8-bit integers
) -> Path:
    """Write a run's network to one file and return its path.

    A .safetensors or an .onnx holds no code; a .pkl is the run's `Learner` as fastai exports it.
    An .onnx is checked on training images of the run.

    Raises: `BadSetting` if `to` has another ending or exists; `BadData` if the network is damaged.
    """
    run = find_run(name, runs)
    to = Path(to or f"{run.path.name}.safetensors")
    if to.suffix not in (*SUFFIXES, ".pkl") or (int8 and to.suffix != ".onnx"):
        allowed = "an .onnx" if int8 else f"a {', '.join(SUFFIXES)} or .pkl"
        raise BadSetting(
            f"the file to export to{' in int8' if int8 else ''} must be {allowed}, not {to}")
    if to.exists():
        raise BadSetting(f"{to} exists; choose another name")
    if to.suffix == ".onnx":
        from digitfast.inference.onnx_export import TRIED, export_onnx
        predictor = run.predictor()
        if not hasattr(predictor.network, "model"):
            return _copy_own(run, to, int8)
        return export_onnx(predictor, to, _training_images(predictor, TRIED), int8)
    if to.suffix != ".pkl":
        run.predictor()  # raises if the network is damaged
    with whole_file(to) as part:
        shutil.copyfile(run.path / (LEARNER if to.suffix == ".pkl" else MODEL), part)
    return to


def _copy_own(run: Run, to: Path, int8: bool) -> Path:
    "Write the .onnx that a run of a network of one's own holds."
    if int8:
        raise BadSetting(f"{run.path.name} is a network of one's own, whose .onnx is in float32; "
                         "leave out int8")
    with whole_file(to) as part:
        shutil.copyfile(run.path / OWN_MODEL, part)
    return to


def _training_images(predictor: Predictor, n: int) -> np.ndarray:
    "Return at most `n` random training images of a network, as its input."
    from digitfast.data.forms import in_parts, labelled_pictures  # these import fastai
    from digitfast.runs.digits import checked_settings, run_digits
    settings = checked_settings(predictor.facts.get("settings", {}))
    pictures = labelled_pictures(in_parts(run_digits(settings))[0])[0]
    chosen = np.random.default_rng(0).permutation(len(pictures))[:n]
    images = [fit_square(read_grey(pictures[i]), predictor.size) for i in chosen]
    return np.stack([np.asarray(image) for image in images])
