"""All timings on a GPU, in one process, each step with its own time limit; see `benchmarks/gpu.sh`.

    python benchmarks/gpu.py OUT.json [STEP...]

Results are written as they come. The steps, all by default: comparisons (the article's code and
digitfast), 99.0, 99.5, profile (of a training step), 99.7. TINY=FOLDER tries them all on the
digits in a small folder.
"""
import contextlib
import io
import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from fastai.torch_core import default_device

from digitfast import digits_path, train_run
from digitfast.bench import peers
from digitfast.runs.environment import environment

sys.path.insert(0, str(Path(__file__).parent))
from gpu_profile import step_profiles  # noqa: E402
from time_to_accuracy import HEAD, RECIPES, measure, row  # noqa: E402

STEPS = {"comparisons": 150, "99.0": 30, "99.5": 70, "profile": 60, "99.7": 250}  # limit in seconds


class _Results:
    "A JSON file that is rewritten with each result."

    def __init__(self, path: Path):
        self.path = path
        self.start = time.monotonic()
        self.content = {"date": time.strftime("%Y-%m-%d"), **environment(default_device())}

    def put(self, key: str, value) -> None:
        self.content[key] = value
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.content, indent=2) + "\n")
        part.replace(self.path)

    @contextlib.contextmanager
    def step(self, name: str, limit: int):
        "End the context after `limit` seconds; record an error instead of raising it."
        def stop(*_):
            raise TimeoutError(f"more than {limit} s")
        signal.signal(signal.SIGALRM, stop)
        signal.alarm(limit)
        start = time.monotonic()
        try:
            yield
        except Exception as e:
            self.put(f"{name}: error", f"{type(e).__name__}: {e}")
            print(f"{name}: {type(e).__name__}: {e}", flush=True)
        finally:
            signal.alarm(0)
            now = time.monotonic()
            print(f"{name}: {now - start:.1f} s, at {now - self.start:.1f} s", flush=True)


def train_ours(arch: str, source: str, seed: int, **settings) -> dict:
    "Time all of `train_run`: preparation, and training with validation and checkpoints."
    with TemporaryDirectory() as runs, contextlib.redirect_stdout(io.StringIO()):
        run = train_run(source, arch, seed=seed, runs=runs, **settings)
    return {**run.summary["seconds"], "accuracy": run.summary["accuracy"],
            "precision": run.summary["precision"]}


def train_theirs(peer, folder: Path, seed: int = 1) -> dict:
    with contextlib.redirect_stdout(io.StringIO()):
        timing = peer(folder, seed)
    return {"preparation": timing.setup, "training": timing.training, "accuracy": timing.accuracy}


def compare(results: _Results, source: str, folder: Path) -> None:
    "Train with the article's code and with digitfast, with validation after each epoch."
    epochs = 5  # of the simple net; the article trains 500, and each takes as long as the next
    resnet = {"first_of_the_process": train_ours("resnet18", source, 1)}
    resnet["theirs"] = [train_theirs(peers.article_resnet18, folder)]
    results.put("resnet18, 1 epoch", resnet)  # kept if time runs out
    resnet["ours"] = [train_ours("resnet18", source, seed) for seed in (1, 2, 3)]
    results.put("resnet18, 1 epoch", resnet)
    first = train_ours("simple", source, 1, **peers.SIMPLE | {"epochs": 1})
    simple = {"first_of_the_process": first,
              "theirs": [train_theirs(partial(peers.article_simple, epochs=epochs), folder)]}
    simple["ours"] = [train_ours("simple", source, seed, **peers.SIMPLE | {"epochs": epochs})
                      for seed in (1, 2, 3)]
    results.put(f"simple net, {epochs} epochs of BasicOptim", simple)
    for name, found in (("resnet18", resnet), ("simple net", simple)):
        times = sorted(run["training"] for run in found["ours"])
        theirs = found["theirs"][0]
        ratio = times[len(times) // 2] / theirs["training"]
        print(f"{name}: {ratio:.4f} of {theirs}, {times}", flush=True)


def main() -> None:
    out = Path(sys.argv[1])
    steps = sys.argv[2:] or STEPS
    tiny = os.environ.get("TINY")
    source, seeds, small = (tiny, 1, {"bs": 32, "epochs": 1}) if tiny else ("mnist", 30, {})
    folder = digits_path(source)
    results = _Results(out)
    for name in steps:
        with results.step(name, STEPS[name]):
            if name == "comparisons":
                compare(results, source, folder)
            elif name == "profile":
                archs = ("digitnet",) if tiny else ("digitnet", "resnet18")
                results.put(name, step_profiles(archs, source))
            else:
                found = measure({**RECIPES[name], **small}, source,
                                seeds=10 if name == "99.7" else seeds,
                                say=partial(results.put, f"{name} %"))
                print(f"{HEAD}\n{row(f'{name} %', found)}", flush=True)


if __name__ == "__main__":
    main()
