"""All that is timed on a GPU, in one process, each step with its own time limit: `benchmarks/gpu.sh` calls it.

    python benchmarks/gpu.py OUT.json [STEP...]

Results are written as they come. Steps, all unless some are named: comparisons (the article's code and digitfast),
99.0, 99.5, profile (of a step), 99.7. TINY=FOLDER tries it out with the digits of a small folder.
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
from digitfast.runs.environment import circumstances

sys.path.insert(0, str(Path(__file__).parent))
from gpu_profile import step_profiles  # noqa: E402
from time_to_accuracy import HEAD, RECIPES, measure, row  # noqa: E402

STEPS = {"comparisons": 150, "99.0": 30, "99.5": 70, "profile": 60, "99.7": 250}  # seconds that each may take
EPOCHS_OF_SIMPLE = 5  # of the article's 500: an epoch takes as long as the next


class _Results:
    "A JSON file that is written again with each result."

    def __init__(self, path: Path):
        self.path, self.content, self.start = path, {"date": time.strftime("%Y-%m-%d")}, time.monotonic()
        self.content |= circumstances(default_device())

    def put(self, key: str, value) -> None:
        self.content[key] = value
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.content, indent=2) + "\n")
        part.replace(self.path)

    @contextlib.contextmanager
    def step(self, name: str, limit: int):
        "While the context lasts, at most `limit` seconds pass; what goes wrong in it does not end the others."
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
            print(f"{name}: {time.monotonic() - start:.1f} s, at {time.monotonic() - self.start:.1f} s", flush=True)


def ours(arch: str, source: str, seed: int, **settings) -> dict:
    "`train_run`, whole: preparation, training with validation and checkpoints, accuracy."
    with TemporaryDirectory() as runs, contextlib.redirect_stdout(io.StringIO()):
        run = train_run(source, arch, seed=seed, runs=runs, **settings)
    return {**run.summary["seconds"], "accuracy": run.summary["accuracy"], "precision": run.summary["precision"]}


def theirs(peer, folder: Path, seed: int = 1) -> dict:
    with contextlib.redirect_stdout(io.StringIO()):
        timing = peer(folder, seed)
    return {"preparation": timing.setup, "training": timing.training, "accuracy": timing.accuracy}


def compare(results: _Results, source: str, folder: Path) -> None:
    "The article's code as it stands on this device, and digitfast. Training with validation after each epoch."
    resnet = {"first_of_the_process": ours("resnet18", source, 1)}
    resnet["theirs"] = [theirs(peers.article_resnet18, folder)]
    results.put("resnet18, 1 epoch", resnet)  # if there is no time for more
    resnet["ours"] = [ours("resnet18", source, seed) for seed in (1, 2, 3)]
    results.put("resnet18, 1 epoch", resnet)
    peers.EPOCHS_OF_SIMPLE = EPOCHS_OF_SIMPLE
    simple = {"first_of_the_process": ours("simple", source, 1, **peers.SIMPLE | {"epochs": 1}),
              "theirs": [theirs(peers.article_simple, folder)]}
    simple["ours"] = [ours("simple", source, seed, **peers.SIMPLE | {"epochs": EPOCHS_OF_SIMPLE}) for seed in (1, 2, 3)]
    results.put(f"simple net, {EPOCHS_OF_SIMPLE} epochs of BasicOptim", simple)
    for name, found in (("resnet18", resnet), ("simple net", simple)):
        times = sorted(run["training"] for run in found["ours"])
        print(f"{name}: {times[len(times) // 2] / found['theirs'][0]['training']:.4f} of {found['theirs'][0]}, {times}",
              flush=True)


def main() -> None:
    out, tiny, steps = Path(sys.argv[1]), os.environ.get("TINY"), sys.argv[2:] or STEPS
    source, seeds, small = (tiny, 1, {"bs": 32, "epochs": 1}) if tiny else ("mnist", 30, {})
    folder, results = digits_path(source), _Results(out)
    for name in steps:
        with results.step(name, STEPS[name]):
            if name == "comparisons":
                compare(results, source, folder)
            elif name == "profile":
                results.put(name, step_profiles(("digitnet",) if tiny else ("digitnet", "resnet18"), source))
            else:
                say = partial(results.put, f"{name} %")
                found = measure({**RECIPES[name], **small}, source, 10 if name == "99.7" else seeds, 1, say)
                print(f"{HEAD}\n{row(f'{name} %', found)}", flush=True)


if __name__ == "__main__":
    main()
