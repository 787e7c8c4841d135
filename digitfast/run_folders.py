"""Run folders as they lie on the disk: found, read, copied from. No need of torch or fastai."""
import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from digitfast.errors import BadSetting, RunNotFound
from digitfast.files import whole_file
from digitfast.pictures import fit_square, read_grey
from digitfast.predictor import SUFFIXES, Predictor, open_predictor
from digitfast.settings import FILE

LEARNER, MODEL, HISTORY, SUMMARY = "learner.pkl", "model.safetensors", "history.csv", "summary.json"


@dataclass(frozen=True)
class Run:
    "A finished run: its folder, and what its summary.json says."
    path: Path
    summary: dict[str, Any]
    sha256: str | None = None  # of learner.pkl, if this process wrote it

    def predictor(self) -> Predictor:
        "The trained network as a `Predictor`. No code in a file is run."
        return open_predictor(self.path / MODEL)

    def learner(
        self,
        trust: bool = False,  # whether code in learner.pkl may be run, though another process wrote it
    ):
        "The trained `Learner`, on the CPU. Raises: `BadSetting` for a file that is not trusted."
        from digitfast.saving import open_learner  # so that a folder can be read without fastai
        return open_learner(self.path / LEARNER, trust, self.sha256)

    def history(self) -> list[dict[str, str]]:
        "One row an epoch, as written in history.csv."
        with open(self.path / HISTORY, newline="") as file:
            return list(csv.DictReader(file))


def new_folder(
    runs: Path,  # folder of the run folders
    name: str,  # of the new one
) -> Path:
    "A new folder `name` in `runs`, with a number behind the name if there is one already. Raises: `BadSetting`."
    if Path(name).name != name or name.startswith("."):
        raise BadSetting(f"{name!r} cannot name a run folder; take a plain name without slashes or a leading dot")
    runs.mkdir(parents=True, exist_ok=True)
    n = 1
    while True:
        folder = runs / (name if n == 1 else f"{name}-{n}")
        try:
            folder.mkdir()
        except FileExistsError:
            n += 1
        else:
            return folder


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
        raise BadSetting(f"{to} is no file to export to{' in int8' if int8 else ''}; {allowed} is wanted")
    if to.exists():
        raise BadSetting(f"{to} exists; name another file")
    if to.suffix == ".onnx":
        from digitfast.onnx_export import TRIED, export_onnx
        predictor = run.predictor()
        return export_onnx(predictor, to, _training_images(predictor, TRIED), int8)
    if to.suffix != ".pkl":
        run.predictor()  # so that no damaged one is handed on
    with whole_file(to) as part:
        shutil.copyfile(run.path / (LEARNER if to.suffix == ".pkl" else MODEL), part)
    return to


def find_run(
    name: str | Path,  # of a run in `runs`, or the path of a run folder
    runs: str | Path = "runs",  # folder of the run folders
) -> Run:
    "The finished run of that name or path. Raises: `RunNotFound`, which lists the runs there are."
    for folder in (Path(runs) / name, Path(name)):
        if (folder / SUMMARY).is_file():
            if run := _read_run(folder):
                return run
            raise RunNotFound(f"{folder / SUMMARY} is damaged; the network may still open: {folder / MODEL}")
        if (folder / FILE).is_file() and (folder / HISTORY).exists():
            raise RunNotFound(f"{folder} is not finished: it has no {SUMMARY}; its training still runs or was killed")
    known = ", ".join(run.path.name for run in list_runs(runs)) or f"none yet; `digitfast fit` makes one in {runs}/"
    raise RunNotFound(f"there is no run {str(name)!r}. Runs: {known}")


def list_runs(
    runs: str | Path = "runs",  # folder of the run folders
) -> list[Run]:
    "All finished runs, the oldest first."
    files = sorted(Path(runs).glob(f"*/{SUMMARY}"), key=lambda file: file.stat().st_mtime)
    return [run for file in files if (run := _read_run(file.parent))]


def _read_run(folder: Path) -> Run | None:
    "The run in `folder`, or None if its summary is not one that `train_run` wrote."
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except ValueError:
        return None
    wanted = {"settings", "accuracy", "seconds"}
    return Run(folder, summary) if isinstance(summary, dict) and wanted <= summary.keys() else None


def _training_images(predictor: Predictor, n: int) -> np.ndarray:
    "At most `n` of the images that a network was trained on, drawn at random, as it takes them."
    from digitfast.loaders import find_splits  # so that a folder can be read without fastai
    from digitfast.sources import digits_path
    path = digits_path(predictor.source)
    files = sorted((path / find_splits(path, need_valid=False)[0]).glob("*/*"))
    chosen = np.random.default_rng(0).permutation(len(files))[:n]
    return np.stack([np.asarray(fit_square(read_grey(files[i]), predictor.size)) for i in chosen])
