"""Run folders on the disk: made, found, read. No need of torch or fastai."""
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
HISTORY, STEPS, SUMMARY = "history.csv", "steps.csv", "summary.json"
KEPT_STEPS = 2000  # lines of a steps.csv, or a few more
CHECKPOINTS = "checkpoints"  # folder in that of a run that is not finished


@dataclass(frozen=True)
class Run:
    "A finished run: its folder, and what its summary.json says."
    path: Path
    summary: dict[str, Any]
    sha256: str | None = None  # of learner.pkl, if this process wrote it

    @property
    def result(self) -> str:
        "Its accuracy, with the 95 % interval and what it was measured on."
        low, high = self.summary["accuracy_interval_95"]
        return (f"accuracy {self.summary['accuracy']:.2%} (95 % interval {low:.2%} to {high:.2%}) on "
                f"{self.summary['validation_images']:,} {self.summary['validated_on']}")

    def predictor(self) -> Predictor:
        "The trained network as a `Predictor`. No code in a file is run."
        return open_predictor(self.path / MODEL)

    def learner(
        self,
        trust: bool = False,  # whether code in learner.pkl may be run, though another process wrote it
    ):
        "The trained `Learner`, on the CPU. Raises: `BadSetting` for a file that is not trusted."
        from digitfast.inference.pickles import open_learner  # so that a folder can be read without fastai
        return open_learner(self.path / LEARNER, trust, self.sha256)

    def history(self) -> list[dict[str, str]]:
        "One row an epoch, as written in history.csv."
        return _read_rows(self.path / HISTORY)

    def steps(self) -> list[tuple[int, float, float]]:
        "Step, learning rate and running mean of the loss, as written in steps.csv; none for a run without that file."
        if not (self.path / STEPS).is_file():
            return []
        try:
            return [(int(row["step"]), float(row["lr"]), float(row["loss"]))
                    for row in _read_rows(self.path / STEPS)]
        except (KeyError, TypeError, ValueError) as e:
            raise BadData(f"{self.path / STEPS} is damaged ({e}); without it the report shows what "
                          "history.csv has: remove it") from e


def _read_rows(path: Path) -> list[dict[str, str]]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (csv.Error, ValueError) as e:
        raise BadData(f"{path} is damaged ({e})") from e


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


@contextmanager
def only_process(
    folder: Path,  # of a run that is to be trained
) -> Iterator[None]:
    "While the context lasts, no other process can train the run in `folder`. Raises: `BadSetting` where one does."
    (folder / CHECKPOINTS).mkdir(exist_ok=True)
    try:
        with FileLock(folder / CHECKPOINTS / "lock", timeout=0):  # the system lets go of it when a process is killed
            yield
    except Timeout:
        raise BadSetting(f"{folder} is being trained by another process; wait for it, or stop it first") from None


def is_unfinished(
    folder: Path,  # of a run
) -> bool:
    "Whether the run in `folder` has a checkpoint to go on from."
    return not (folder / SUMMARY).exists() and any((folder / CHECKPOINTS).glob("*.safetensors"))


def unfinished_folder(
    name: str | Path,  # of a run, or its folder
    runs: str | Path = "runs",  # folder of the run folders
) -> Path:
    "The folder of a run that can be gone on with. Raises: `RunNotFound`; `BadSetting` for one that is finished."
    name = name.path if isinstance(name, Run) else name
    runs = Path(runs).expanduser()
    for folder in (runs / name, Path(name)):
        if (folder / SUMMARY).is_file():
            raise BadSetting(f"{folder} is finished; repeat it with: "
                             f"digitfast fit --settings {folder / FILE}")
        if (folder / FILE).is_file() and (folder / CHECKPOINTS).is_dir():
            return folder
    known = ", ".join(folder.name for folder in unfinished_runs(runs)) or "none"
    raise RunNotFound(f"there is no run {str(name)!r} to resume. Unfinished runs in {runs}/: {known}")


def unfinished_runs(
    runs: str | Path = "runs",  # folder of the run folders
) -> list[Path]:
    "The folders of the runs that are not finished: they still train, or were stopped."
    return sorted(folder.parent for folder in Path(runs).expanduser().glob(f"*/{CHECKPOINTS}")
                  if not (folder.parent / SUMMARY).exists())


def write_steps(
    folder: Path,  # of the run
    lrs: Sequence[float],  # learning rate of each step
    losses: Sequence[float],  # loss of each, a running mean as fastai's `Recorder` keeps it
) -> None:
    "Write steps.csv: every step, or of a long training some of them, evenly, and the last."
    n = len(lrs)
    kept = [*range(0, n - 1, -(-n // KEPT_STEPS)), n - 1] if n else []
    with open(folder / STEPS, "w", newline="") as file:
        csv.writer(file).writerows([("step", "lr", "loss"),
                                    *((i + 1, f"{lrs[i]:.6g}", f"{float(losses[i]):.6g}") for i in kept)])


def find_run(
    name: str | Path,  # of a run in `runs`, or the path of a run folder
    runs: str | Path = "runs",  # folder of the run folders
) -> Run:
    "Return the finished run of that name or path. Raises: `RunNotFound`, which lists the runs."
    if isinstance(name, Run):
        return name
    runs = Path(runs).expanduser()
    for folder in (Path(runs) / name, Path(name)):
        if (folder / SUMMARY).is_file():
            if run := _read_run(folder):
                return run
            raise RunNotFound(f"{folder / SUMMARY} is damaged; the network may still open: {folder / MODEL}")
        if (folder / CHECKPOINTS).is_dir():
            raise RunNotFound(f"{folder} is not finished: its training is still running or was stopped; resume with: "
                              f"digitfast fit --resume {folder}")
    known = ", ".join(run.path.name for run in list_runs(runs)) or f"none yet; `digitfast fit` makes one in {runs}/"
    raise RunNotFound(f"there is no run {str(name)!r}. Runs: {known}")


def list_runs(
    runs: str | Path = "runs",  # folder of the run folders
) -> list[Run]:
    "All finished runs, the oldest first."
    files = [file for file in Path(runs).expanduser().glob(f"*/{SUMMARY}") if file.is_file()]
    files.sort(key=lambda file: file.stat().st_mtime)
    return [run for file in files if (run := _read_run(file.parent))]


def _read_run(folder: Path) -> Run | None:
    "The run in `folder`, or None if its summary is not one that `train_run` wrote."
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None
    return Run(folder, summary) if _is_summary(summary) else None


def _is_summary(summary: Any) -> bool:
    "Return whether all is there that reports and lists show, each of its kind."
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
