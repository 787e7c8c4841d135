"""A run's report as one HTML file without scripts, which loads nothing from elsewhere."""
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from digitfast import __version__
from digitfast.data.pictures import one_line_name
from digitfast.errors import BadSetting
from digitfast.evaluation.accuracy import Evidence, accuracy_interval
from digitfast.files import whole_file
from digitfast.inference.calibration import (
    accuracy_over_coverage,
    expected_calibration_error,
    reliability,
)
from digitfast.report.charts import (
    Axis,
    Line,
    axis_for,
    interval_bar,
    line_chart,
    reliability_chart,
)
from digitfast.report.gather import RunEvidence, gather_evidence
from digitfast.report.markup import TEMPLATE, interval_text, percent_tick, report_environment
from digitfast.runs.folders import Run, find_run

STYLE = Path(__file__).parent / "report.css"


@dataclass(frozen=True, kw_only=True)
class Headline:
    "The accuracy, as the head of the page shows it."
    interval: str  # in words
    bar: Markup
    start: float  # accuracy at the left end of the bar
    changed: bool  # whether it differs from the accuracy at the end of training


@dataclass(frozen=True, kw_only=True)
class LearningCurves:
    "Charts of the training, and the rows of history.csv."
    loss: Markup
    rate: Markup | None  # None: the run has no steps.csv
    accuracy: Markup | None  # None: the run has one epoch
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True, kw_only=True)
class Rate:
    "Precision or recall of a class."
    value: float
    bar: Markup  # its interval


@dataclass(frozen=True, kw_only=True)
class ClassResult:
    "How well one class is recognised."
    label: str
    images: int
    precision: Rate | None  # None: no answer names the class
    recall: Rate | None  # None: no image is of the class
    mistaken_for: str | None  # the most frequent wrong answer
    mistakes: int  # how often that one was given


@dataclass(frozen=True, kw_only=True)
class ClassTable:
    "The results of all classes."
    start: float  # value at the left end of the bars
    rows: list[ClassResult]


@dataclass(frozen=True, kw_only=True)
class Trust:
    "Calibration, and accuracy over coverage."
    error: float  # expected calibration error
    is_cross_validated: bool  # whether the images of the report set the temperature
    temperature: float | None  # None: the run is not calibrated
    reliability: Markup
    coverage: Markup
    rows: list[tuple[float, float]]  # coverage and accuracy


@dataclass(frozen=True, kw_only=True)
class Phase:
    "A part of the time that the run or its report took."
    name: str
    seconds: float
    part: float  # of the longest phase, 0..1


def write_report(
    run: str | Path | Run,  # name, folder, or the run itself
    to: str | Path | None = None,  # .html to write or replace; None: report.html in the run folder
    runs: str | Path = "runs",  # folder of the run folders
    device: str | None = None,  # where the small networks are trained; None: a GPU if there is one
) -> Path:
    """Write a page about a run: how it learned, which classes it confuses, how far to trust its
    probabilities, which labels look wrong. Return its path. It is one file that loads nothing.

    Five small networks are trained to find wrong labels; only the page is added to the run folder.
    Raises: `RunNotFound`, `BadSetting` for another kind of file, errors of `gather_evidence`.
    """
    run = run if isinstance(run, Run) else find_run(run, runs)
    to = Path(to) if to else run.path / "report.html"
    if to.suffix.lower() not in (".html", ".htm") or not to.absolute().parent.is_dir():
        raise BadSetting(f"{str(to)!r} must be the path of a .html in a folder that exists")
    page = report_page(gather_evidence(run, device))
    with whole_file(to) as part:
        part.write_text(page, encoding="utf-8", errors="replace")  # a file name need not be text
    return to


def report_page(
    results: RunEvidence,
) -> str:  # HTML
    "Return the report page of a run."
    run, evidence = results.run, results.evidence
    confusion = evidence.confusion
    return report_environment().get_template(TEMPLATE.name).render(
        version=__version__, style=Markup(STYLE.read_text(encoding="utf-8")), results=results,
        name=run.path.name, summary=run.summary, evidence=evidence, headline=_headline(results),
        curves=_curves(run), classes=_class_table(evidence), confusion=confusion.tolist(),
        shades=_shades(confusion).tolist(), trust=_trust(results), phases=_phases(results),
        facts=_facts(results))


def _headline(results: RunEvidence) -> Headline:
    "Return the accuracy with its interval, and a bar of both."
    summary, evidence = results.run.summary, results.evidence
    low, high = evidence.interval
    start = min(0.99, _twentieth(low))  # the bar shows at least 1 %
    interval = interval_text(low, high)
    return Headline(interval=interval, start=start,
                    bar=interval_bar(interval, evidence.accuracy, low, high, start, width=352),
                    changed=round(summary["accuracy"] * evidence.n) != evidence.right)


def _twentieth(value: float) -> float:
    "Round down to 5 %."
    return math.floor(20 * value) / 20


def _curves(run: Run, most_dots: int = 40) -> LearningCurves:
    "Draw the losses, the learning rate and the accuracy, with dots for up to `most_dots` epochs."
    history, steps = run.history(), run.steps()
    epochs = max(1, len(history))
    per_epoch = (steps[-1][0] if steps else 1) / epochs
    dots = epochs <= most_dots

    def column(name: str) -> list[tuple[float, float]]:
        return [(i + 1, float(row[name])) for i, row in enumerate(history) if row.get(name)]

    valid, accuracy = column("valid_loss"), column("accuracy")
    train = [(step / per_epoch, loss) for step, _, loss in steps] or column("train_loss")
    rates = [(step / per_epoch, lr) for step, lr, _ in steps]
    x = Axis("epoch", 0, epochs, least=1 if epochs > 4 else 0)
    loss_axis = axis_for("loss", _heights([*train, *valid]), log=True)
    rate_axis = axis_for("learning rate", [0, *_heights(rates)], low=0)
    accuracy_axis = axis_for("accuracy", _heights(accuracy), percent_tick)
    columns = list(history[0]) if history else []
    return LearningCurves(
        loss=line_chart("Training and validation loss", x, loss_axis,
                        [Line(train), Line(valid, colour="two", dots=dots)]),
        rate=line_chart("Learning rate at each step", x, rate_axis,
                        [Line(rates)]) if rates else None,
        accuracy=line_chart("Validation accuracy after each epoch", x, accuracy_axis,
                            [Line(accuracy, colour="two", dots=dots)]) if epochs > 1 else None,
        columns=columns, rows=[[row.get(name) or "–" for name in columns] for row in history])


def _heights(points: Sequence[tuple[float, float]]) -> list[float]:
    return [y for _, y in points]


def _class_table(evidence: Evidence) -> ClassTable:
    "Return the precision, the recall and the most frequent mistake of each class."
    confusion, vocab = evidence.confusion, evidence.vocab
    right = np.diag(confusion)
    totals = {"precision": confusion.sum(axis=0), "recall": confusion.sum(axis=1)}
    spans = {name: [accuracy_interval(int(k), int(n)) if n else None
                    for k, n in zip(right, total, strict=True)] for name, total in totals.items()}
    start = _twentieth(min((span[0] for of in spans.values() for span in of if span), default=0))

    def rate(name: str, i: int) -> Rate | None:
        if spans[name][i] is None:
            return None
        value, title = right[i] / totals[name][i], f"{name} of {one_line_name(vocab[i])}"
        return Rate(value=value, bar=interval_bar(title, value, *spans[name][i], start))

    rows = []
    for i, label in enumerate(vocab):
        wrong = [(n, j) for j, n in enumerate(confusion[i].tolist()) if j != i and n]
        mistakes, answer = max(wrong, default=(0, i))
        rows.append(ClassResult(
            label=label, images=totals["recall"][i], precision=rate("precision", i),
            recall=rate("recall", i), mistaken_for=vocab[answer] if wrong else None,
            mistakes=mistakes))
    return ClassTable(start=start, rows=rows)


def _shades(confusion: np.ndarray) -> np.ndarray:
    "Return how dark each mistake is shown, 0..1, by the logarithm of its count."
    most = max(1, int((confusion - np.diag(np.diag(confusion))).max()))
    return 0.14 + 0.5 * np.log1p(confusion) / math.log1p(most)


def _trust(results: RunEvidence) -> Trust:
    "Return the calibration of the probabilities, and the accuracy of the surest answers."
    chances, labels = results.chances, results.labels
    calibration = results.run.summary.get("calibration", {})
    # where the images of the report set the temperature, the run's cross-validated error is shown
    cross_validated = calibration.get("expected_calibration_error")
    error = (expected_calibration_error(chances, labels) if cross_validated is None
             else cross_validated)
    bins = [(sure / n, right / n, accuracy_interval(int(right), int(n)), int(n))
            for n, sure, right in reliability(chances, labels).tolist() if n]
    coverages = tuple(round(1 - i / 100, 2) for i in range(51))  # 1 to 0.5
    curve = [(100 * part, accuracy) for part, accuracy
             in accuracy_over_coverage(chances, labels, coverages).items()]
    x = Axis("coverage: part that is answered", 50, 100, text="{:g}%".format)
    y = axis_for("accuracy", _heights(curve), percent_tick, high=1.0)
    return Trust(
        error=error, temperature=calibration.get("temperature"),
        is_cross_validated=cross_validated is not None,
        reliability=reliability_chart("How often answers of each probability are right", bins),
        coverage=line_chart("Accuracy of the surest answers, by the part of the images that is "
                            "answered", x, y, [Line(curve)]),
        rows=list(accuracy_over_coverage(chances, labels).items()))


def _phases(results: RunEvidence) -> list[Phase]:
    "Return how long each part of the run and of the report took."
    seconds = results.run.summary["seconds"]
    preparation, training = seconds["preparation"], seconds["training"]
    phases = {"preparing images and network": preparation, "training and validation": training,
              "measuring and saving": seconds["total"] - preparation - training,
              **{f"this report: {name}": value for name, value in results.seconds.items()}}
    longest = max(*phases.values(), 1e-9)
    return [Phase(name=name, seconds=value, part=max(0.0, value) / longest)
            for name, value in phases.items()]


def _facts(results: RunEvidence) -> dict[str, Any]:
    "Return the data, the device and the versions of the run."
    summary = results.run.summary
    data, device = summary["data"], summary["device"]
    same = {True: "unchanged", False: "different now", None: "not known"}[results.same_images]
    return {"source": summary["settings"]["source"], "folder": data["path"],
            "training images": f"{data['training_images']:,}",
            "measured on": f"{results.evidence.n:,} {results.measured_on}",
            "SHA-256 of names and pixels": f"{data['sha256']} ({same})",
            "device": f"{device['name']} ({device['type']}, {device['cpu_cores']} cores)",
            "precision": summary.get("precision", "–"), **summary["versions"]}
