"""Run folders on disk: create, find and read them, without torch or fastai."""
import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from digitfast.errors import BadData, BadSetting, RunNotFound
from digitfast.inference.predictor import MODEL, Predictor, open_predictor
from digitfast.runs.settings import FILE

LEARNER = "learner.pkl"
HISTORY = "history.csv"
STEPS = "steps.csv"
SUMMARY = "summary.json"
CHECKPOINTS = "checkpoints"  # folder in the folder of an unfinished run
KEPT_STEPS = 2000  # most lines of a steps.csv, give or take one


@dataclass(frozen=True)
class Run:
    "A finished run: its folder and the content of its summary.json."
    path: Path
    summary: dict[str, Any]
    sha256: str | None = None  # of learner.pkl, if this process wrote it

    @property
    def result(self) -> str:
        "The accuracy, with its 95 % interval and the images it was measured on."
        low, high = self.summary["accuracy_interval_95"]
        return (f"accuracy {self.summary['accuracy']:.2%} "
                f"(95 % interval {low:.2%} to {high:.2%}) on "
                f"{self.summary['validation_images']:,} {self.summary['validated_on']}")

    def predictor(self) -> Predictor:
        "Return the trained network as a `Predictor`; no code in a file is run."
        return open_predictor(self.path)

    def learner(
        self,
        trust: bool = False,  # whether to run code in a learner.pkl that another process wrote
    ):
        "Return the trained `Learner`, on the CPU. Raises: `BadSetting` for an untrusted file."
        from digitfast.inference.pickles import open_learner  # this imports fastai
        return open_learner(self.path / LEARNER, trust, self.sha256)

    def history(self) -> list[dict[str, str]]:
        "Return the rows of history.csv, one per epoch."
        return _read_rows(self.path / HISTORY)

    def steps(self) -> list[tuple[int, float, float]]:
        "Return step, learning rate and mean loss per row of steps.csv; [] if there is none."
        path = self.path / STEPS
        if not path.is_file():
            return []
        try:
            return [(int(row["step"]), float(row["lr"]), float(row["loss"]))
                    for row in _read_rows(path)]
        except (KeyError, TypeError, ValueError) as e:
            raise BadData(f"{path} is damaged ({e}); remove it, and the report will use "
                          "history.csv alone") from e


def _read_rows(path: Path) -> list[dict[str, str]]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (csv.Error, ValueError) as e:
        raise BadData(f"{path} is damaged ({e})") from e


def new_folder(
    runs: Path,  # folder of the run folders
    name: str,  # of the new folder; a number is added if it is taken
) -> Path:
    "Make and return a new folder in `runs`. Raises: `BadSetting` for a name that is not plain."
    if Path(name).name != name or name.startswith("."):
        raise BadSetting(
            f"the name of a run must have no slashes and no leading dot, unlike {name!r}")
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


@contextmanager
def only_process(
    folder: Path,  # of a run to train
) -> Iterator[None]:
    """While the context lasts, keep other processes from training the run in `folder`.

    Raises: `BadSetting` if another process trains it.
    """
    (folder / CHECKPOINTS).mkdir(exist_ok=True)
    try:
        with FileLock(folder / CHECKPOINTS / "lock", timeout=0):  # freed when the process dies
            yield
    except Timeout:
        raise BadSetting(f"{folder} is being trained by another process; "
                         "wait for it, or stop it first") from None


def is_unfinished(
    folder: Path,  # of a run
) -> bool:
    "Return whether the run in `folder` has a checkpoint to resume from."
    has_checkpoint = any((folder / CHECKPOINTS).glob("*.safetensors"))
    return has_checkpoint and not (folder / SUMMARY).exists()


def unfinished_folder(
    name: str | Path,  # of a run, or its folder
    runs: str | Path = "runs",  # folder of the run folders
) -> Path:
    "Return the folder of an unfinished run. Raises: `RunNotFound`; `BadSetting` if finished."
    name = name.path if isinstance(name, Run) else name
    runs = Path(runs).expanduser()
    for folder in (runs / name, Path(name)):
        if (folder / SUMMARY).is_file():
            raise BadSetting(f"{folder} is finished; repeat it with: "
                             f"digitfast fit --settings {folder / FILE}")
        if (folder / FILE).is_file() and (folder / CHECKPOINTS).is_dir():
            return folder
    known = ", ".join(folder.name for folder in unfinished_runs(runs)) or "none"
    raise RunNotFound(f"no unfinished run named {str(name)!r}. Unfinished runs in {runs}/: {known}")


def unfinished_runs(
    runs: str | Path = "runs",  # folder of the run folders
) -> list[Path]:
    "Return the folders of the runs that are still training or were stopped."
    folders = [folder.parent for folder in Path(runs).expanduser().glob(f"*/{CHECKPOINTS}")]
    return sorted(folder for folder in folders if not (folder / SUMMARY).exists())


def write_steps(
    folder: Path,  # of the run
    lrs: Sequence[float],  # learning rate of each step
    losses: Sequence[float],  # of each step, as running means from fastai's `Recorder`
) -> None:
    "Write steps.csv: all steps, or evenly spaced ones and the last of a long training."
    n = len(lrs)
    kept = [*range(0, n - 1, -(-n // KEPT_STEPS)), n - 1] if n else []
    with open(folder / STEPS, "w", newline="") as file:
        rows = [(i + 1, f"{lrs[i]:.6g}", f"{float(losses[i]):.6g}") for i in kept]
        csv.writer(file).writerows([("step", "lr", "loss"), *rows])


def find_run(
    name: str | Path,  # of a run in `runs`, or the path of a run folder
    runs: str | Path = "runs",  # folder of the run folders
) -> Run:
    "Return the finished run of that name or path. Raises: `RunNotFound`, with a list of runs."
    if isinstance(name, Run):
        return name
    runs = Path(runs).expanduser()
    for folder in (Path(runs) / name, Path(name)):
        if (folder / SUMMARY).is_file():
            if run := _read_run(folder):
                return run
            raise RunNotFound(f"{folder / SUMMARY} is damaged; the network may still open: "
                              f"{folder / MODEL}")
        if (folder / CHECKPOINTS).is_dir():
            raise RunNotFound(f"{folder} is not finished: its training is still running or was "
                              f"stopped; resume with: digitfast fit --resume {folder}")
    none = f"none yet; `digitfast fit` makes one in {runs}/"
    known = ", ".join(run.path.name for run in list_runs(runs)) or none
    raise RunNotFound(f"there is no run {str(name)!r}. Runs: {known}")


def list_runs(
    runs: str | Path = "runs",  # folder of the run folders
) -> list[Run]:
    "Return all finished runs, oldest first."
    files = [file for file in Path(runs).expanduser().glob(f"*/{SUMMARY}") if file.is_file()]
    files.sort(key=lambda file: file.stat().st_mtime)
    return [run for file in files if (run := _read_run(file.parent))]


def _read_run(folder: Path) -> Run | None:
    "Return the run in `folder`, or None if its summary is not one that `train_run` wrote."
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None
    return Run(folder, summary) if _is_summary(summary) else None


def _is_summary(summary: Any) -> bool:
    "Return whether everything that reports and lists show is there, and of the right type."
    number, text, table = (int, float), str, dict
    kinds = {"settings": table, "seconds": table, "data": table, "versions": table, "device": table,
             "accuracy": number, "validation_images": int, "parameters": int,
             "accuracy_interval_95": list, "validated_on": text}
    of_table = {"settings": {"arch": text, "epochs": int, "source": text, "seed": int, "size": int,
                             "bs": int, "holdout": number},
                "seconds": {"preparation": number, "training": number, "total": number},
                "data": {"path": text, "training_images": int},
                "device": {"name": text, "type": text}}

    def fits(values: Any, kinds: dict) -> bool:
        return isinstance(values, dict) and all(
            isinstance(values.get(key), kind) for key, kind in kinds.items())
    if not fits(summary, kinds) or not all(fits(summary[key], of_table[key]) for key in of_table):
        return False
    ends = summary["accuracy_interval_95"]
    calibration = summary.get("calibration", {})
    return (len(ends) == 2 and all(isinstance(end, number) for end in ends)
            and isinstance(calibration, dict)
            and all(isinstance(value, number) for value in calibration.values()))
