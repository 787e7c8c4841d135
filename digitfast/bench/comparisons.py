"""`digitfast bench`: digitfast against its alternatives, and against the bare arithmetic.

Every measurement is a separate process (see `peers`); those to compare take turns.
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
from digitfast.runs.environment import environment

SAMPLE_STEP = 10  # a quick bench uses one image in 10


@dataclass(frozen=True, kw_only=True)
class Comparison:
    "Three measurements to take side by side: names in `peers.PEERS`."
    what: str
    ours: str
    theirs: str
    bare: str
    repeats: int  # with seeds 1, 2, …


COMPARISONS = (
    Comparison(what="resnet18, 1 epoch / article's fastai code",
               ours="ours-resnet18", theirs="article-resnet18", bare="bare-resnet18", repeats=3),
    Comparison(what="simple net, 20 epochs of BasicOptim / article's loop",
               ours="ours-simple", theirs="article-simple", bare="bare-simple", repeats=3),
    Comparison(what="first network, 1 epoch / article's PyTorch loop",
               ours="ours-article", theirs="article-pytorch", bare="bare-article", repeats=5),
    Comparison(what="digitnet, 1 epoch / train_mnist_fast's design",
               ours="ours-digitnet", theirs="train-mnist-fast", bare="bare-digitnet", repeats=5),
)


def run_bench(
    quick: bool = False,  # measure once, on a tenth of the images, to see that it works
    say: Callable[[str], Any] = print,  # called with each line of progress
) -> dict[str, Any]:  # for `write_results` and `results_table`
    """Measure all comparisons on MNIST, on this machine, and return the results.

    Those of a quick bench must not be quoted: times are too short and accuracies too low.

    Raises: `DigitError` if a measurement fails.
    """
    digits = digits_path()
    with TemporaryDirectory() as scratch:
        say("set-up, once: unpacking and decoding MNIST")
        once = _measure("open-digits", "mnist", 0, Path(scratch) / "new")
        folder = _sample(digits, Path(scratch) / "mnist_png") if quick else digits
        home = Path(scratch) / "home"
        rows = [_compare(comparison, folder, 1 if quick else comparison.repeats, home, say)
                for comparison in COMPARISONS]
    return {"quick": quick, "date": time.strftime("%Y-%m-%d"),
            "once": {"unpacking": once["setup"], "decoding": once["training"]},
            "comparisons": rows, **environment(default_device())}


def results_table(
    results: dict[str, Any],  # from `run_bench`
) -> str:
    """Return the results as a Markdown table.

    It has medians of seconds, ratios of medians, and mean accuracies ± standard deviations.
    """
    heads = ("ours / theirs", "ratio", "seconds", "ours / bare", "set-up", "process",
             "accuracy, %", "peak memory", "n")
    lines = [f"| {' | '.join(heads)} |", f"| --- |{' -: |' * (len(heads) - 1)}"]
    for row in results["comparisons"]:
        ours, theirs, bare = (_median(row[who], "training") for who in ("ours", "theirs", "bare"))
        both = (row["ours"], row["theirs"])
        our_peak, their_peak = (_median(measurements, "peak_bytes") for measurements in both)
        cells = (row["what"], f"**{ours / theirs:.2f}**", f"{ours:.1f} / {theirs:.1f}",
                 f"{ours / bare:.2f}",
                 " / ".join(f"{_median(measurements, 'setup'):.1f}" for measurements in both),
                 " / ".join(f"{_median(measurements, 'process'):.1f}" for measurements in both),
                 " / ".join(_format_accuracy(measurements) for measurements in both),
                 f"{our_peak / their_peak:.2f}",
                 str(len(row["ours"])))
        lines.append(f"| {' | '.join(cells)} |")
    once = results["once"]
    device = results["device"]
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    lines += ["", f"Once, in the set-up of the first run: unpacking {once['unpacking']:.1f} s, "
              f"decoding {once['decoding']:.1f} s. "
              f"{device['name']}, {device['cpu_cores']} cores; {versions}."]
    if results["quick"]:
        lines.append(f"QUICK: one image in {SAMPLE_STEP}, measured once. "
                     "These figures only show that the bench works.")
    return "\n".join(lines)


def write_results(
    results: dict[str, Any],  # from `run_bench`
    path: str | Path,  # of the JSON file
) -> None:
    "Write the results, with every measurement, as JSON."
    with whole_file(Path(path)) as part:
        part.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def _compare(
    comparison: Comparison,
    folder: Path,  # of the digits
    repeats: int,
    home: Path,  # fastai's data folder if `folder` is a sample
    say: Callable,
) -> dict[str, Any]:
    "Return all measurements of one comparison: theirs, ours and the bare one in turn."
    row: dict[str, Any] = {"what": comparison.what, "ours": [], "theirs": [], "bare": []}
    for seed in range(1, repeats + 1):
        for who in ("theirs", "ours", "bare"):
            name = getattr(comparison, who)
            is_sample = folder.is_relative_to(home.parent)
            found = _measure(name, folder, seed, home if is_sample else None)
            row[who].append(found)
            accuracy = f", accuracy {found['accuracy']:.2%}" if found["accuracy"] else ""
            say(f"{name}, seed {seed}: set-up {found['setup']:.1f} s, "
                f"training {found['training']:.2f} s{accuracy}")
    return row


def _measure(
    name: str,  # in `peers.PEERS`
    folder: str | Path,  # of the digits, or "mnist"
    seed: int,
    home: Path | None,  # fastai's data folder; None: the user's
) -> dict[str, float]:
    "Return one measurement, from a separate process. Raises: `DigitError` if it fails."
    env = os.environ | ({"FASTAI_HOME": str(home)} if home else {})
    start = time.perf_counter()
    command = [sys.executable, "-W", "ignore", "-m", "digitfast.bench.peers",
               name, str(folder), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        # exit code -9: probably out of memory
        why = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise DigitError(f"the measurement {name} failed: {why[-1]}")
    return {**json.loads(done.stdout.splitlines()[-1]), "process": time.perf_counter() - start}


def _sample(digits: Path, to: Path) -> Path:
    "Copy every tenth image of `digits` to the folder `to` and return it."
    for split in find_splits(digits):
        files = [file for files in class_images(digits / split).values() for file in files]
        for file in files[::SAMPLE_STEP]:
            copy = to / file.relative_to(digits)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    return to


def _median(measurements: list[dict], key: str) -> float:
    return statistics.median(measurement[key] for measurement in measurements)


def _format_accuracy(measurements: list[dict]) -> str:
    "Return the mean accuracy ± standard deviation, in percent; – if none was measured."
    found = [100 * measurement["accuracy"] for measurement in measurements
             if measurement["accuracy"] is not None]
    if not found:
        return "–"
    deviation = f" ± {statistics.stdev(found):.2f}" if len(found) > 1 else ""
    return f"{statistics.mean(found):.2f}{deviation}"
