"""The accuracies in the README: the named runs of settings.ini on MNIST, each over several seeds.

    python benchmarks/accuracies.py benchmarks/results/accuracies.json [RUN ...]

Accuracy is on the 10,000 test images, after the last epoch; nothing is chosen by it. Runs already
in the file are not trained again, so a measurement that was stopped can be resumed.
"""
import json
import sys
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory

from digitfast import train_run
from digitfast.runs.settings import read_settings

SEEDS = {"digitnet": 5, "digitnet-deep": 3, "article-resnet18": 3, "article-pytorch": 3,
         "article-basic": 3, "article-basic --epochs 500": 1, "best": 3}  # number of seeds


def measure(name: str, seed: int) -> dict:
    "Train one named run and return its results, hardware and versions."
    run, _, epochs = name.partition(" --epochs ")
    settings = {**read_settings(run), "seed": seed}
    if epochs:
        settings["epochs"] = int(epochs)
    with TemporaryDirectory() as folder:
        summary = train_run(**settings, runs=folder, name=run).summary
    kept = ("accuracy", "validation_loss", "training_loss", "precision", "threads", "device",
            "versions")
    return {"seed": seed, **{key: summary[key] for key in kept}}


def main(to: str, *names: str) -> None:
    file = Path(to)
    found = json.loads(file.read_text()) if file.is_file() else {}
    for name in names or SEEDS:
        rows = found.setdefault(name, [])
        for seed in range(1, SEEDS[name] + 1):
            if seed not in [row["seed"] for row in rows]:
                rows.append(measure(name, seed))
                file.write_text(json.dumps(found, indent=1) + "\n")
        accuracies = [100 * row["accuracy"] for row in rows]
        spread = f" ± {stdev(accuracies):.2f}" if len(rows) > 1 else ""
        print(f"{name}: {mean(accuracies):.2f}{spread} %, n = {len(rows)}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
