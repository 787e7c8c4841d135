"""The network of a run, copied to one file."""
import shutil
from pathlib import Path

import numpy as np

from digitfast.data.pictures import fit_square, read_grey
from digitfast.errors import BadSetting
from digitfast.files import whole_file
from digitfast.inference.predictor import MODEL, SUFFIXES, Predictor
from digitfast.runs.folders import LEARNER, find_run


def export_run(
    name: str | Path,  # of a run, or its folder
    to: str | Path | None = None,  # .safetensors, .onnx or .pkl to write; None: the run's name with .safetensors
    runs: str | Path = "runs",  # folder of the run folders
    int8: bool = False,  # whether an .onnx computes in integers of 8 bits
) -> Path:
    """One file with a run's network: a .safetensors or an .onnx, which hold no code, or its learner as fastai's .pkl.

    An .onnx is tried out on training images of the run. Raises: `BadSetting`, if the file exists, too; `BadData`.
    """
    run = find_run(name, runs)
    to = Path(to or f"{run.path.name}.safetensors")
    if to.suffix not in (*SUFFIXES, ".pkl") or (int8 and to.suffix != ".onnx"):
        allowed = "an .onnx" if int8 else f"a {', '.join(SUFFIXES)} or .pkl"
        raise BadSetting(f"the file to export to{' in int8' if int8 else ''} must be {allowed}, not {to}")
    if to.exists():
        raise BadSetting(f"{to} exists; name another file")
    if to.suffix == ".onnx":
        from digitfast.inference.onnx_export import TRIED, export_onnx
        predictor = run.predictor()
        return export_onnx(predictor, to, _training_images(predictor, TRIED), int8)
    if to.suffix != ".pkl":
        run.predictor()  # so that no damaged one is handed on
    with whole_file(to) as part:
        shutil.copyfile(run.path / (LEARNER if to.suffix == ".pkl" else MODEL), part)
    return to


def _training_images(predictor: Predictor, n: int) -> np.ndarray:
    "At most `n` of the images that a network was trained on, drawn at random, as it takes them."
    from digitfast.data.folders import class_images, find_splits  # so that a folder can be read without fastai
    from digitfast.data.sources import digits_path
    path = digits_path(predictor.source, fetch=False)
    split = path / find_splits(path, need_valid=False)[0]
    files = [file for files in class_images(split).values() for file in files]
    chosen = np.random.default_rng(0).permutation(len(files))[:n]
    return np.stack([np.asarray(fit_square(read_grey(files[i]), predictor.size)) for i in chosen])
