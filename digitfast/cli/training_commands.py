"""The commands that train networks, and list digits and runs: they parse, call and print.

torch and fastai are imported inside the commands, so that `digitfast --help` and a mistyped option
answer at once.
"""
import sys
from pathlib import Path
from typing import Annotated

import typer

from digitfast.cli.options import setting_options
from digitfast.errors import BadSetting, DigitError
from digitfast.runs.settings import PACKED_SETTINGS, named_runs, read_settings
from digitfast.training.processes import is_first

try:
    RUNS = list(named_runs(PACKED_SETTINGS))
except DigitError:  # `fit --run` says what is wrong with the file
    RUNS = []


@setting_options()
def fit(
    run: Annotated[str | None, typer.Option(
        help="A named run, whose settings the options here override: a section of settings.ini, or "
             f"{', '.join(RUNS)}.")] = None,
    settings: Annotated[str | None, typer.Option(
        help="The settings.ini to take the run from; that of a run folder repeats the run. "
             "Default: ./settings.ini, then digitfast's own.")] = None,
    resume: Annotated[str | None, typer.Option(
        help="Name or folder of a run that was killed or interrupted, to resume from its last "
             "checkpoint.")] = None,
    **given,
):
    """Train a network and keep it in a run folder.

    If a launcher starts several processes, they train it together, each with its share of every
    batch: torchrun --nproc_per_node 2 -m digitfast fit
    """
    given = {key: value for key, value in given.items() if value is not None}
    from digitfast.data.forms import open_digits
    from digitfast.runs.run import resume_run, train_run
    if resume is None:
        kwargs = read_settings(run, settings) if run or settings else {}
        kwargs.pop("runs", None)  # no file decides where anything is written
        if run:
            kwargs.setdefault("name", run)
        if "source" in kwargs and "source" not in given:
            open_digits(kwargs["source"], fetch=False)  # what only a file names is not fetched
        done = train_run(**{**kwargs, **given})
    else:
        others = {**given, "run": run, "settings": settings}
        names = [f"--{key.replace('_', '-')}" for key, value in others.items()
                 if value is not None and key != "runs"]
        if names:
            raise BadSetting(f"--resume keeps the settings of {resume}; leave out "
                             + ", ".join(names))
        done = resume_run(resume, given.get("runs", "runs"))
    if not is_first():
        return
    took = done.summary["seconds"]
    print(f"{done.result}\n{took['total']:.1f} s, of which {took['training']:.1f} s training and "
          f"validation\nsaved in {done.path}")


@setting_options("source", "arch", "bs", "opt", "size", "device", "seed")
def lr_find(
    plot: Annotated[str, typer.Option(
        help="PNG to write; it shows the loss over the learning rate.")] = "lr_find.png",
    **given,
):
    "Try learning rates on a few batches, print fastai's suggestions and save the plot."
    from digitfast.training.lr_find import find_lr
    given = {key: value for key, value in given.items() if value is not None}
    for name, rate in find_lr(plot=plot, **given).items():
        print(f"{name:8} {rate:.2g}")
    print(f"plot in {plot}")


def data(
    source: Annotated[str, typer.Argument(help="As --source of fit.")] = "mnist",
):
    """Print where the digits are, how many of each there are, their size and checksum.

    They are unpacked or downloaded first if they are not there yet.
    """
    from digitfast.data.facts import source_facts
    facts = source_facts(source)
    print(facts["path"])
    for split, counts in facts["counts"].items():
        print(f"{split:10}{sum(counts.values()):>7,} images   "
              + "  ".join(f"{label}: {count:,}" for label, count in counts.items()))
    print(f"{'size':10}{facts['bytes'] / 1e6:>7,.1f} MB")
    print(f"{'sha256':11}{facts['sha256']}  (of names and pixels)")
    if source == "mnist":
        print("MNIST is by Yann LeCun, Corinna Cortes and Christopher J. C. Burges, CC BY-SA 3.0.")


def runs(
    folder: Annotated[str, typer.Argument(help="Folder of the run folders.")] = "runs",
):
    "List the runs, the oldest first, and those that are not finished."
    from digitfast.runs.folders import list_runs, unfinished_runs
    found = list_runs(folder)
    unfinished = unfinished_runs(folder)
    if not found and not unfinished:
        print(f"no runs in {folder}/ yet; digitfast fit makes one")
        return
    width = max(len(path.name) for path in (*(run.path for run in found), *unfinished))
    print(f"{'run':{width}}  accuracy  epochs  training  architecture")
    for run in found:
        result = run.summary
        settings = result["settings"]
        print(f"{run.path.name:{width}}  {result['accuracy']:8.2%}  {settings['epochs']:6}  "
              f"{result['seconds']['training']:6.1f} s  {settings['arch']}")
    for path in unfinished:
        print(f"{path.name:{width}}  not finished: still training, or resume with: "
              f"digitfast fit --resume {path}")


def bench(
    quick: Annotated[bool, typer.Option(
        "--quick", help="Measure once, on a tenth of the images: a few minutes, to see that it "
                        "works.")] = False,
    to: Annotated[Path | None, typer.Option(
        "--json", help=".json file to write all measurements to.")] = None,
):
    """Compare digitfast's speed with others' on this machine.

    The others are the article's code, train_mnist_fast's design and the bare arithmetic.
    """
    if to and (to.suffix != ".json" or not to.absolute().parent.is_dir()):
        raise BadSetting("--json must be the path of a .json in an existing folder, "
                         f"not {str(to)!r}")
    from digitfast.bench.comparisons import results_table, run_bench, write_results
    results = run_bench(quick, lambda line: print(line, file=sys.stderr, flush=True))
    if to:
        write_results(results, to)
    print(results_table(results))
