"""The commands that use trained networks: they parse, call and print.

torch and fastai are imported inside the commands, so that `digitfast --help` and a mistyped option
answer at once.
"""
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from digitfast.cli.options import (
    AsCsv,
    AsJson,
    Device,
    Images,
    Ink,
    Network,
    RunsFolder,
    Steps,
    Trust,
    complain,
    watched,
)
from digitfast.errors import BadSetting, DigitError


def evaluate(
    target: Network = None,
    source: Annotated[str | None, typer.Option(
        help="Digits to evaluate on, as for fit; a folder may also hold the class folders "
             "themselves. Default: what the network was trained on; mnist for a .pkl outside of a "
             "run folder.")] = None,
    sets: Annotated[str | None, typer.Option(
        metavar="[FOLDER]",
        help="Print a table over real pictures in FOLDER, whose truth.tsv says what each shows, "
             "instead. Without FOLDER: over MNIST, other people's digits, handwriting fonts, "
             "synthetic photos and pictures without a digit. Takes some minutes.")] = None,
    device: Device = None,
    trust: Trust = False,
    runs: RunsFolder = "runs",
):
    "Print the accuracy on test images with its 95 % interval, and the confusion matrix."
    from digitfast.cli.networks import open_network
    try:
        predictor = open_network(target, runs, trust, device)
    except DigitError as e:
        if sets == "":
            e.add_note("a folder of pictures after --sets must hold a truth.tsv")
        raise
    if sets is not None:
        _print_table(predictor, sets)
        return
    from digitfast.data.forms import evaluation_digits
    from digitfast.evaluation.evaluate import evaluate_pictures
    from digitfast.runs.digits import validation_digits
    if source == "":
        raise BadSetting("--source must name digits, such as mnist or a folder; it is empty")
    digits = validation_digits(predictor) if source is None else evaluation_digits(source)
    as_is = predictor.form != "mnist" or source in (None, predictor.source)
    evidence = evaluate_pictures(predictor, digits, as_is)
    _print_evidence(evidence, digits)


def _print_table(
    predictor,
    folder: str,  # of real pictures; "": the sets that are made or bundled
) -> None:
    from digitfast.evaluation.other_sets import evaluate_sets
    from digitfast.evaluation.real_pictures import evaluate_real_pictures

    def show(line: str) -> None:
        print(line, flush=True)
    if folder:
        evaluate_real_pictures(predictor, folder, show)
    else:
        evaluate_sets(predictor, show)


def _print_evidence(evidence, digits) -> None:
    "Print accuracy, shares of sure answers, the confusion matrix and the most frequent mistakes."
    low, high = evidence.interval
    print(f"accuracy {evidence.accuracy:.2%} (95 % interval {low:.2%} to {high:.2%}), "
          f"loss {evidence.loss:.4f}, {evidence.n:,} images of {digits}")
    sure = evidence.sure
    print(f"right and sure {sure.right:.2%}, wrong and sure {sure.wrong:.2%}, "
          f"refused (unsure, or no digit) {sure.refused:.2%}")
    heads = [*evidence.vocab]
    table = evidence.confusion.tolist()
    if any(evidence.not_found):
        heads.append("none")
        table = [[*row, count] for row, count in zip(table, evidence.not_found, strict=True)]
    width = max(5, *(len(label) + 1 for label in heads))
    print("\nactual \\ predicted\n" + "".join(label.rjust(width) for label in ["", *heads]))
    for label, row in zip(evidence.vocab, table, strict=True):
        print("".join(str(cell).rjust(width) for cell in [label, *row]))
    if mistakes := evidence.most_confused():
        print("\nmost often: " + ", ".join(f"{actual} taken for {predicted} ({count})"
                                           for actual, predicted, count in mistakes))


def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Name or folder of a run.")],
    to: Annotated[Path | None, typer.Option(
        help=".html file to write. Default: report.html in the run folder.")] = None,
    device: Device = None,
    runs: RunsFolder = "runs",
):
    """Write a page with pictures about a run.

    It shows learning curves, mistakes, calibration and labels that look wrong.
    """
    from digitfast.report.page import write_report
    from digitfast.runs.folders import find_run
    found = find_run(run, runs)
    print(write_report(found, to, device=device))
    print(found.result)


def predict(
    images: Images,
    as_json: AsJson = False,
    as_is: Annotated[bool, typer.Option(
        "--as-is", help="Take the pictures as they are, like those that the network was trained "
                        "on: MNIST's have light ink on a dark ground. Networks that were not "
                        "trained on mnist always do.")] = False,
    ink: Ink = "auto",
    steps: Steps = None,
    to_csv: AsCsv = None,
    submission: Annotated[Path | None, typer.Option(
        help="Write the likeliest classes to this new .csv as ImageId,Label, for Kaggle.")] = None,
    device: Device = None,
    trust: Trust = False,
    runs: RunsFolder = "runs",
):
    """Print the digit in each picture and its probability, "unsure" or "no digit".

    A .csv has a picture in each row, as Kaggle's test.csv has. For numbers of several digits see:
    digitfast read
    """
    from digitfast.cli.networks import network_and_pictures
    from digitfast.reading.answer_files import check_csv, write_digits, write_submission
    from digitfast.reading.answers import predict_pictures
    if to_csv and to_csv == submission:
        raise BadSetting(f"--csv and --submission must be two files, not {to_csv} twice")
    writers = {to_csv: write_digits, submission: write_submission}
    for path in filter(None, writers):
        check_csv(path)
    predictor, images = network_and_pictures(images, runs, trust, device)
    answers = predict_pictures(images, predictor, ink, as_is or predictor.form != "mnist", steps,
                               watched)
    _give_answers(answers, as_json, digit_line, writers)


def read(
    images: Images,
    as_json: AsJson = False,
    boxes: Annotated[Path | None, typer.Option(
        help="PNG to write; it shows the picture with a box around each digit.")] = None,
    ink: Ink = "auto",
    steps: Steps = None,
    region: Annotated[str | None, typer.Option(
        metavar="X,Y,W,H",
        help="Read only this field of each picture: left, top, width and height in pixels, or as "
             "parts of the picture, such as 0.5,0,0.5,0.25.")] = None,
    digits: Annotated[int | None, typer.Option(
        help="How many digits the one number in the picture, or in its region, has.")] = None,
    to_csv: AsCsv = None,
    device: Device = None,
    trust: Trust = False,
    runs: RunsFolder = "runs",
):
    """Print the numbers in each picture, line by line, with the probability of each digit.

    A ? stands for a mark that may be a digit.
    """
    from digitfast.cli.networks import network_and_pictures
    from digitfast.reading.answer_files import check_csv, write_numbers
    from digitfast.reading.answers import read_pictures
    if to_csv:
        check_csv(to_csv)
    field = None if region is None else _numbers(region)
    predictor, images = network_and_pictures(images, runs, trust, device)
    answers = read_pictures(images, predictor, ink, boxes, steps, watched, field, digits)
    _give_answers(answers, as_json, number_lines, {to_csv: write_numbers})


def draw(
    target: Network = None,
    port: Annotated[int, typer.Option(
        help="Port of the page's address. Default: a free one.", show_default=False)] = 0,
    browser: Annotated[bool, typer.Option(
        "--browser/--no-browser",
        help="Open the page in the browser, or only print its address.")] = True,
    keep: Annotated[Path | None, typer.Option(
        help="Let wrong answers be put right on the page, and keep these drawings in this folder, "
             "by class, for: digitfast fit --from reader --source FOLDER --replay 0.5")] = None,
    device: Device = None,
    trust: Trust = False,
    runs: RunsFolder = "runs",
):
    "Serve a page, on this computer only, to draw digits on or open photos in; it answers at once."
    from digitfast.cli.networks import open_network
    from digitfast.draw.server import serve_draw_page
    predictor = open_network(target, runs, trust, device)

    def ready(address: str) -> None:
        print(f"Draw at {address} (Ctrl-C ends it)", flush=True)
        if browser:
            import threading
            import webbrowser
            # in a thread: some browsers return only when they are closed
            threading.Thread(target=webbrowser.open, args=[address], daemon=True).start()
    with suppress(KeyboardInterrupt):
        serve_draw_page(predictor, port, ready, keep)


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Name or folder of a run.")],
    to: Annotated[Path | None, typer.Option(
        help="File to write: .safetensors; .onnx, which answers without torch; or .pkl for fastai, "
             "which can hold code. Default: RUN.safetensors.")] = None,
    int8: Annotated[bool, typer.Option(
        "--int8", help="Write an .onnx that computes in 8-bit integers, and print its accuracy "
                       "next to that of the trained network.")] = False,
    runs: RunsFolder = "runs",
):
    "Export a run's network to one file, for predict, read, evaluate and other programs."
    from digitfast.runs.export import export_run
    from digitfast.runs.folders import find_run
    file = export_run(run, to, runs, int8)
    print(file)
    if int8:
        from digitfast.data.folders import split_name
        from digitfast.evaluation.evaluate import evaluate_pictures
        from digitfast.inference.predictor import open_predictor
        from digitfast.runs.digits import validation_digits
        networks = {"float32": find_run(run, runs).predictor(), "int8": open_predictor(file)}
        digits = validation_digits(networks["float32"])
        split = split_name(digits.name) if isinstance(digits, Path) else digits.validated_on
        for name, predictor in networks.items():
            evidence = evaluate_pictures(predictor, digits, as_is=True)
            print(f"{name:8} accuracy {evidence.accuracy:.2%} on {evidence.n:,} {split}")


def _numbers(region: str) -> list[float]:
    "Return the numbers between commas. Raises: `BadSetting`."
    try:
        return [float(side) for side in region.split(",")]
    except ValueError:
        raise BadSetting("--region must be four numbers, left,top,width,height, such as "
                         f"0.5,0,0.5,0.25, not {region!r}") from None


def _json(answers: list[dict]) -> str:
    """Return `answers` as JSON.

    Escape what stdout cannot print: file names that are not text, and characters beyond its
    encoding.
    """
    text = json.dumps(answers, indent=2, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(answers, indent=2)
    return text


def _give_answers(
    answers: list[dict],
    as_json: bool,
    lines: Callable[[dict], str],  # returns what is printed for an answer
    writers: dict[Path | None, Callable[[list[dict], Path], None]],  # of files that are asked for
) -> None:
    "Print the answers, or write them to files, and complain of those that are errors."
    paths = list(filter(None, writers))
    if as_json:
        print(_json(answers))
    for answer in answers:
        if "error" in answer:
            complain(answer["error"])
        elif not as_json and not paths:
            print(lines(answer), flush=True)
    for path in paths:
        writers[path](answers, path)
        if not as_json:
            print(f"{len(answers):,} answers in {path}")
    if any("error" in answer for answer in answers):
        raise typer.Exit(1)


def digit_line(answer: dict) -> str:
    "Return a line for an answer of `predict_pictures`."
    from digitfast.data.pictures import one_line_name
    file = one_line_name(answer["file"])
    if answer["digit"] is None:
        line = f"{file}  {answer['answer']}"
        if "guess" in answer:
            line += f" (most like {answer['guess']}, {answer['probability']:.2%})"
        return line
    line = f"{file}  {answer['digit']}  {answer['probability']:.2%}"
    if answer.get("digits", 1) > 1:
        line += f"  (one of {answer['digits']} digits: see digitfast read)"
    return line


def number_lines(answer: dict) -> str:
    "Return a line for each line of an answer of `read_pictures`."
    from digitfast.data.pictures import one_line_name
    file = one_line_name(answer["file"])
    if not answer["lines"]:
        return f"{file}  no digit"
    sure = [" ".join(f"{digit['probability']:.0%}" for digit in line) for line in answer["lines"]]
    return "\n".join(f"{file}  {text}  {chances}"
                     for text, chances in zip(answer["text"].split("\n"), sure, strict=True))
