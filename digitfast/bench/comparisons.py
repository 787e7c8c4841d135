"""`digitfast bench`: digitfast against what its users would run instead, and against the bare arithmetic.

Every measurement is a process of its own (see `peers`), and the ones to be compared take turns.
"""
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastai.torch_core import default_device

from digitfast.data.folders import class_images, find_splits
from digitfast.data.sources import digits_path
from digitfast.errors import DigitError
from digitfast.files import whole_file
from digitfast.runs.environment import circumstances

SAMPLE = 10  # one image in so many is taken by a quick bench


@dataclass(frozen=True)
class Comparison:
    "What is measured side by side: names of `peers.PEERS`."
    what: str
    ours: str
    theirs: str
    bare: str
    repeats: int  # with seeds 1, 2, …


COMPARISONS = (
    Comparison("resnet18, 1 epoch / article's fastai code", "ours-resnet18", "article-resnet18", "bare-resnet18", 3),
    Comparison("simple net, 20 epochs of BasicOptim / article's loop", "ours-simple", "article-simple", "bare-simple",
               3),
    Comparison("first network, 1 epoch / article's PyTorch loop", "ours-article", "article-pytorch", "bare-article",
               5),
    Comparison("digitnet, 1 epoch / train_mnist_fast's design", "ours-digitnet", "train-mnist-fast", "bare-digitnet",
               5),
)


def run_bench(
    quick: bool = False,  # a tenth of the images, each measured once: to see that it works
    say: Callable[[str], Any] = print,  # what is done with each line of progress
) -> dict[str, Any]:  # what `write_results` writes and `results_table` shows
    """Measure all comparisons on MNIST, on this machine.

    With `quick` each takes a tenth of the images once: the times are then too short, and the accuracies too low, to be
    quoted. Raises: `DigitError` if a measurement fails.
    """
    digits = digits_path()
    with TemporaryDirectory() as scratch:
        say("set-up, once: unpacking and decoding MNIST")
        once = _measure("open-digits", "mnist", 0, Path(scratch) / "new")
        folder = _sample(digits, Path(scratch) / "mnist_png") if quick else digits
        rows = [_compare(comparison, folder, 1 if quick else comparison.repeats, Path(scratch) / "home", say)
                for comparison in COMPARISONS]
    return {"quick": quick, "date": time.strftime("%Y-%m-%d"),
            "once": {"unpacking": once["setup"], "decoding": once["training"]},
            "comparisons": rows, **circumstances(default_device())}


def results_table(
    results: dict[str, Any],  # from `run_bench`
) -> str:
    "The results as a Markdown table: medians of seconds, ratios of medians, mean accuracies with their deviations."
    heads = ("ours / theirs", "ratio", "seconds", "ours / bare", "set-up", "process", "accuracy, %", "peak memory", "n")
    lines = [f"| {' | '.join(heads)} |", f"| --- |{' -: |' * (len(heads) - 1)}"]
    for row in results["comparisons"]:
        ours, theirs, bare = (_median(row[who], "training") for who in ("ours", "theirs", "bare"))
        cells = (row["what"], f"**{ours / theirs:.2f}**", f"{ours:.1f} / {theirs:.1f}", f"{ours / bare:.2f}",
                 *(" / ".join(f"{_median(row[who], key):.1f}" for who in ("ours", "theirs"))
                   for key in ("setup", "process")),
                 " / ".join(_accuracy(row[who]) for who in ("ours", "theirs")),
                 f"{_median(row['ours'], 'peak_bytes') / _median(row['theirs'], 'peak_bytes'):.2f}",
                 str(len(row["ours"])))
        lines.append(f"| {' | '.join(cells)} |")
    once, device = results["once"], results["device"]
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    lines += ["", f"Once, in the set-up of the first run: unpacking {once['unpacking']:.1f} s, decoding "
              f"{once['decoding']:.1f} s. {device['name']}, {device['cpu_cores']} cores; {versions}."]
    if results["quick"]:
        lines.append(f"QUICK: one image in {SAMPLE}, measured once. These figures only show that the bench works.")
    return "\n".join(lines)


def write_results(
    results: dict[str, Any],  # from `run_bench`
    path: str | Path,  # of the JSON file
) -> None:
    "Write the results, with every single measurement, as JSON."
    with whole_file(Path(path)) as part:
        part.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def _compare(comparison: Comparison, folder: Path, repeats: int, home: Path, say: Callable) -> dict[str, Any]:
    "All measurements of one comparison: ours, theirs and the bare one in turn."
    row: dict[str, Any] = {"what": comparison.what, "ours": [], "theirs": [], "bare": []}
    for seed in range(1, repeats + 1):
        for who in ("theirs", "ours", "bare"):
            name = getattr(comparison, who)
            found = _measure(name, folder, seed, home if folder.is_relative_to(home.parent) else None)
            row[who].append(found)
            say(f"{name}, seed {seed}: set-up {found['setup']:.1f} s, training {found['training']:.2f} s"
                + (f", accuracy {found['accuracy']:.2%}" if found["accuracy"] else ""))
    return row


def _measure(name: str, folder: str | Path, seed: int, home: Path | None) -> dict[str, float]:
    "One measurement in a process of its own; `home` is a data folder of fastai for it alone, None the user's."
    env = os.environ | ({"FASTAI_HOME": str(home)} if home else {})
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-W", "ignore", "-m", "digitfast.bench.peers", name, str(folder), str(seed)],
                          capture_output=True, text=True, env=env)
    if done.returncode:
        why = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]  # -9: out of memory, most likely
        raise DigitError(f"the measurement {name} failed: {why[-1]}")
    return {**json.loads(done.stdout.splitlines()[-1]), "process": time.perf_counter() - start}


def _sample(digits: Path, to: Path) -> Path:
    "Every tenth image of `digits`, copied."
    for split in find_splits(digits):
        files = [file for files in class_images(digits / split).values() for file in files]
        for file in files[::SAMPLE]:
            copy = to / file.relative_to(digits)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    return to


def _median(measurements: list[dict], key: str) -> float:
    return statistics.median(measurement[key] for measurement in measurements)


def _accuracy(measurements: list[dict]) -> str:
    "Mean and deviation of the accuracies, in percent."
    found = [100 * measurement["accuracy"] for measurement in measurements if measurement["accuracy"] is not None]
    if not found:
        return "–"
    return f"{statistics.mean(found):.2f}" + (f" ± {statistics.stdev(found):.2f}" if len(found) > 1 else "")
