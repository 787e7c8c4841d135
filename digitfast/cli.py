"""The command line: it parses, calls and prints.

torch and fastai are imported inside the commands, so that `digitfast --help` and a mistyped option answer at once.
"""
import json
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from digitfast import __version__
from digitfast.errors import BadSetting, DigitError
from digitfast.registry import ARCHITECTURES, OPTIMIZERS, PRECISIONS, SCHEDULES
from digitfast.settings import PACKED_SETTINGS, named_runs, read_settings

app = typer.Typer(
    name="digitfast", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From a folder of digit pictures to a classifier you can trust, in seconds. "
         "Start with: digitfast fit")
_UsageError = typer.BadParameter.__base__  # typer brings a click of its own: its errors have no other public name
_ClickError = _UsageError.__base__

try:
    RUNS = list(named_runs(PACKED_SETTINGS))
except DigitError:  # `fit --run` says what is wrong with the file
    RUNS = []

Source = Annotated[str | None, typer.Option(
    help="The digits: mnist (comes with digitfast), a fastai name such as MNIST_SAMPLE, the URL of an archive, or a "
         "folder with training/ and testing/ (or train/ and valid/). Default: mnist.")]
Arch = Annotated[str | None, typer.Option(
    help=f"Architecture: {', '.join(ARCHITECTURES)}; also torchvision's and, where it is installed, timm's others. "
         "Default: digitnet.")]
Opt = Annotated[str | None, typer.Option(help=f"Optimiser: {', '.join(OPTIMIZERS)}. Default: adam.")]
Bs = Annotated[int | None, typer.Option(help="Images a batch. Default: 128.")]
Size = Annotated[int | None, typer.Option(help="Side of the images that the network sees, in pixels. Default: 28.")]
Seed = Annotated[int | None, typer.Option(help="Of weights, order and held-out images. Default: 42.")]
Runs = Annotated[str | None, typer.Option("--runs", help="Folder of the run folders. Default: runs.")]
_NETWORK = ("name or folder of a run, a .safetensors, an .onnx (which answers soonest) or, with --trust, a .pkl. "
            "Default: the network that comes with digitfast.")
Images = Annotated[list[str], typer.Argument(
    metavar="[RUN|FILE] IMAGE...", help="Photos, scans, drawings; a folder stands for all pictures in it. Before them "
                                        "may stand a network: " + _NETWORK)]
AsJson = Annotated[bool, typer.Option("--json", help="A JSON list, one entry a picture, with probabilities and boxes.")]
Ink = Annotated[str, typer.Option(help="dark or light, against its paper; auto: whichever the picture shows.")]
Steps = Annotated[Path | None, typer.Option(help="PNG to draw the way from the picture to what the network saw into.")]
Trust = Annotated[bool, typer.Option("--trust", help="Open a .pkl, though it can run any code: you know who made it. "
                                     "Other files cannot.")]
RunsFolder = Annotated[str, typer.Option("--runs", help="Folder of the run folders.")]


@app.command()
def fit(
    arch: Arch = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images. Default: 1.")] = None,
    lr: Annotated[float | None, typer.Option(
        help="Learning rate; with one_cycle the highest one. Default: 0.015.")] = None,
    bs: Bs = None,
    opt: Opt = None,
    schedule: Annotated[str | None, typer.Option(
        help=f"Learning rate over time: {' or '.join(SCHEDULES)}. Default: one_cycle.")] = None,
    mom: Annotated[float | None, typer.Option(
        help="Momentum, 0 to below 1. Default: the optimiser's and schedule's.")] = None,
    wd: Annotated[float | None, typer.Option(help="Weight decay. Default: the optimiser's.")] = None,
    augment: Annotated[float | None, typer.Option(
        help="Turn, shear, zoom and shift the training images anew in each epoch: 1 for up to 20° and 15 %, 0 for not "
             "at all. Default: 0.0.")] = None,
    label_smoothing: Annotated[float | None, typer.Option(
        help="Part of the probability that all classes share as the target, 0 for none. Default: 0.05.")] = None,
    pen: Annotated[float | None, typer.Option(
        help="Part of the training images that get other strokes, a coarser resolution, traces of ruled lines and the "
             "like, 0 to 1. Default: 0.0.")] = None,
    non_digits: Annotated[float | None, typer.Option(
        help="Letters, scribbles and pieces of digits to a digit in training, 0 to 1: the network learns to say \"no "
             "digit\". Default: 0.0.")] = None,
    ema: Annotated[float | None, typer.Option(
        help="Keep a running mean of the weights, of this decay (0.999), instead of the last ones. "
             "Default: 0.0.")] = None,
    precision: Annotated[str | None, typer.Option(
        help=f"Floating-point format of the training passes: {', '.join(PRECISIONS)}; auto is bf16 or fp16 where that "
             "is fast, validation is in fp32. Default: auto.")] = None,
    source: Source = None,
    holdout: Annotated[float | None, typer.Option(
        help="Validate on this part of the training images (0.1: a tenth) and leave the test images alone. "
             "Default: 0.0.")] = None,
    size: Size = None,
    seed: Seed = None,
    name: Annotated[str | None, typer.Option(
        help="Name of the run folder; a number is added where it is taken. "
             "Default: the named run's or the architecture's.")] = None,
    runs: Runs = None,
    run: Annotated[str | None, typer.Option(
        help="A named run, whose settings the options here override: a section of settings.ini, or "
             f"{', '.join(RUNS)}.")] = None,
    settings: Annotated[str | None, typer.Option(
        help="The settings.ini to take the run from; that of a run folder repeats the run. "
             "Default: ./settings.ini, then digitfast's own.")] = None,
):
    "Train a network and keep it in a run folder."
    given = {key: value for key, value in locals().items() if key not in ("run", "settings") and value is not None}
    from digitfast.runs import train_run
    kwargs = read_settings(train_run, run, settings) if run or settings else {}
    kwargs = {**({"name": run} if run else {}), **kwargs, **given}
    done = train_run(**kwargs)
    result, seconds = done.summary, done.summary["seconds"]
    low, high = result["accuracy_interval_95"]
    print(f"accuracy {result['accuracy']:.2%} (95 % interval {low:.2%} to {high:.2%}) on "
          f"{result['validation_images']:,} images of {result['validated_on']}\n"
          f"{seconds['total']:.1f} s, of which {seconds['training']:.1f} s training and validation\n"
          f"saved in {done.path}")


@app.command()
def lr_find(
    arch: Arch = None,
    bs: Bs = None,
    opt: Opt = None,
    source: Source = None,
    size: Size = None,
    seed: Seed = None,
    plot: Annotated[str, typer.Option(help="PNG to write the curve of loss over learning rate to.")] = "lr_find.png",
):
    "Try out learning rates on a few batches, print fastai's suggestions and save the plot."
    given = {key: value for key, value in locals().items() if key != "plot" and value is not None}
    from digitfast.runs import find_lr
    for name, rate in find_lr(plot=plot, **given).items():
        print(f"{name:8} {rate:.2g}")
    print(f"plot in {plot}")


@app.command()
def evaluate(
    target: Annotated[str | None, typer.Argument(metavar="[RUN|FILE]", help=_NETWORK.capitalize())] = None,
    source: Annotated[str | None, typer.Option(
        help="Digits to test on, as for fit; a folder may also hold the class folders themselves. "
             "Default: what the network was trained on; mnist for a .pkl that lies in no run folder.")] = None,
    sets: Annotated[bool, typer.Option("--sets", help="Instead, a table over MNIST, other people's digits, handwriting "
                                       "fonts, synthetic photos, and what is no digit. Some minutes.")] = False,
    trust: Trust = False,
    runs: RunsFolder = "runs",
):
    "Accuracy on the test images with its 95 % interval, and which digits are mistaken for which."
    from digitfast.answers import open_network
    predictor = open_network(target, runs, trust)
    if sets:
        from digitfast.test_sets import evaluate_sets
        evaluate_sets(predictor, lambda line: print(line, flush=True))
        return
    from digitfast.runs import test_folder
    from digitfast.test_sets import evaluate_pictures
    folder = test_folder(source or predictor.source)
    evidence = evaluate_pictures(predictor, folder, predictor.form != "mnist" or source in (None, predictor.source))
    low, high = evidence.interval
    print(f"accuracy {evidence.accuracy:.2%} (95 % interval {low:.2%} to {high:.2%}), loss {evidence.loss:.4f}, "
          f"{evidence.n:,} images of {folder}")
    width = max(5, *(len(label) + 1 for label in evidence.vocab))
    print("\nactual \\ predicted\n" + "".join(label.rjust(width) for label in ["", *evidence.vocab]))
    for label, row in zip(evidence.vocab, evidence.confusion, strict=True):
        print("".join(str(cell).rjust(width) for cell in [label, *row]))
    if mistakes := evidence.most_confused():
        print("\nmost often: " + ", ".join(f"{a} taken for {p} ({count})" for a, p, count in mistakes))


@app.command()
def predict(
    images: Images,
    as_json: AsJson = False,
    as_is: Annotated[bool, typer.Option("--as-is", help="The pictures are as those that the network was trained on: "
                                        "MNIST's have light ink on a dark ground. So are those for a network that was "
                                        "trained on other digits than mnist.")] = False,
    ink: Ink = "auto",
    steps: Steps = None,
    trust: Trust = False,
    runs: RunsFolder = "runs",
):
    "The digit in each picture and its probability, or that it is unsure, or no digit. For numbers see: digitfast read"
    from digitfast.answers import digit_line, network_and_pictures, predict_pictures
    predictor, images = network_and_pictures(images, runs, trust)
    answers = predict_pictures(images, predictor, ink, as_is or predictor.form != "mnist", steps)
    _print_answers(answers, as_json, digit_line)


@app.command()
def read(
    images: Images,
    as_json: AsJson = False,
    boxes: Annotated[Path | None, typer.Option(help="PNG to draw the picture with a box for each digit into.")] = None,
    ink: Ink = "auto",
    steps: Steps = None,
    trust: Trust = False,
    runs: RunsFolder = "runs",
):
    "The numbers in each picture, line by line, and how sure each digit is; ? stands for a mark that may be one."
    from digitfast.answers import network_and_pictures, number_lines, read_pictures
    predictor, images = network_and_pictures(images, runs, trust)
    answers = read_pictures(images, predictor, ink, boxes, steps)
    _print_answers(answers, as_json, number_lines)


@app.command()
def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Name or folder of a run.")],
    to: Annotated[Path | None, typer.Option(help="File to write: .safetensors; .onnx, which answers without torch; "
                                            ".pkl for fastai, which can hold code. Default: RUN.safetensors.")] = None,
    int8: Annotated[bool, typer.Option("--int8", help="An .onnx that computes in integers of 8 bits, and its accuracy "
                                       "beside that of the network as it was trained.")] = False,
    runs: RunsFolder = "runs",
):
    "Copy a run's network to one file, for predict, read and evaluate here or for others."
    from digitfast.run_folders import export_run, find_run
    file = export_run(run, to, runs, int8)
    print(file)
    if int8:
        from digitfast.predictor import open_predictor
        from digitfast.runs import test_folder
        from digitfast.test_sets import evaluate_pictures
        for name, predictor in (("float32", find_run(run, runs).predictor()), ("int8", open_predictor(file))):
            evidence = evaluate_pictures(predictor, test_folder(predictor.source), as_is=True)
            print(f"{name:8} accuracy {evidence.accuracy:.2%} on {evidence.n:,} test images")


@app.command()
def data(
    source: Annotated[str, typer.Argument(help="As --source of fit.")] = "mnist",
):
    "Where the digits are, how many of each there are, their checksum and size. Unpacks or downloads them if need be."
    from digitfast.loaders import folder_facts
    facts = folder_facts(source)
    print(facts["path"])
    for split, counts in facts["counts"].items():
        print(f"{split:10}{sum(counts.values()):>7,} images   "
              + "  ".join(f"{label}: {count:,}" for label, count in counts.items()))
    print(f"{'size':10}{facts['bytes'] / 1e6:>7,.1f} MB\n{'sha256':11}{facts['sha256']}  (of names and pixels)")
    if source == "mnist":
        print("MNIST is by Yann LeCun, Corinna Cortes and Christopher J. C. Burges, CC BY-SA 3.0.")


@app.command()
def runs(
    folder: Annotated[str, typer.Argument(help="Folder of the run folders.")] = "runs",
):
    "The finished runs, the oldest first."
    from digitfast.run_folders import list_runs
    found = list_runs(folder)
    if not found:
        print(f"no runs in {folder}/ yet; digitfast fit makes one")
        return
    width = max(len(run.path.name) for run in found)
    print(f"{'run':{width}}  accuracy  epochs  training  architecture")
    for run in found:
        result = run.summary
        print(f"{run.path.name:{width}}  {result['accuracy']:8.2%}  {result['settings']['epochs']:6}  "
              f"{result['seconds']['training']:6.1f} s  {result['settings']['arch']}")


@app.command()
def bench(
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of the images, each measured once: a few minutes, to "
                                        "see that it works.")] = False,
    to: Annotated[Path | None, typer.Option("--json", help="File for the results with every measurement.")] = None,
):
    "Time digitfast on this machine against the article's code, train_mnist_fast's design and the bare arithmetic."
    if to and (to.suffix != ".json" or not to.absolute().parent.is_dir()):
        raise BadSetting(f"--json {str(to)!r}: the path of a .json in a folder that is there is wanted")
    from digitfast.bench import results_table, run_bench, write_results
    results = run_bench(quick, lambda line: print(line, file=sys.stderr, flush=True))
    if to:
        write_results(results, to)
    print(results_table(results))


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False):
    if version:
        print(f"digitfast {__version__}")
        raise typer.Exit


def _print_answers(answers: list[dict], as_json: bool, lines) -> None:
    if as_json:
        print(json.dumps(answers, indent=2, ensure_ascii=False))
    for answer in answers:
        if "error" in answer:
            _complain(answer["error"])
        elif not as_json:
            print(lines(answer), flush=True)
    if any("error" in answer for answer in answers):
        raise typer.Exit(1)


def _complain(message: object) -> None:
    print("digitfast: " + " ".join(str(message).split()), file=sys.stderr, flush=True)


def main() -> None:
    "Run the command line. Mistakes are one line on stderr: exit code 1, 2 for the command's own words, 130 for Ctrl-C."
    for plans_of_a_library in (DeprecationWarning, FutureWarning):
        warnings.filterwarnings("ignore", category=plans_of_a_library)
    warnings.showwarning = lambda message, *_: _complain(message)
    try:
        code = app(prog_name="digitfast", standalone_mode=False) or 0
    except _ClickError as e:
        where = f"; see {e.ctx.command_path} --help" if isinstance(e, _UsageError) and e.ctx else ""
        _complain(e.format_message() + where)
        code = e.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except (DigitError, OSError) as e:
        _complain(e)
        code = 1
    if code == 130:
        _complain("interrupted; nothing unfinished was kept")
    sys.exit(code)
