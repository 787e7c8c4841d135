"""A run's evidence as one HTML file that a person looks at: no script, and nothing that lies elsewhere."""
import math
from collections.abc import Iterable
from html import escape
from pathlib import Path

import numpy as np

from digitfast import __version__
from digitfast.data.folders import HELD_OUT
from digitfast.data.pictures import one_line_name
from digitfast.errors import BadSetting
from digitfast.evaluation.accuracy import accuracy_interval
from digitfast.files import whole_file
from digitfast.inference.calibration import accuracy_over_coverage, expected_calibration_error, reliability
from digitfast.report.charts import Axis, Line, axis_for, interval_bar, line_chart, reliability_chart
from digitfast.report.gather import LabelErrors, RunEvidence, Shown, gather_evidence
from digitfast.report.markup import (
    as_text,
    facts_table,
    figure,
    interval_text,
    note,
    percent,
    percent_tick,
    png_address,
    rows_table,
    seconds_text,
)
from digitfast.runs.folders import Run, find_run

STYLE = Path(__file__).parent / "report.css"
COVERAGES = tuple(round(1 - i / 100, 2) for i in range(51))  # 1 to 0.5
#: Nothing but what is in the file may be loaded, whatever stands in it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'"


def write_report(
    run: str | Path | Run,  # name, folder, or the run itself
    to: str | Path | None = None,  # .html to write; None: report.html in the run folder. One that is there is replaced
    runs: str | Path = "runs",  # folder of the run folders
) -> Path:
    """Write a page with pictures of all that is known of a run: how it learned, what it mistakes, how far it can be
    believed, which labels look wrong. It is one file that loads nothing, for any browser.

    Five small networks are trained on the way, to find wrong labels; nothing in the run folder changes but the page.
    Raises: `RunNotFound`, `BadSetting` for another kind of file, and what `gather_evidence` raises.
    """
    run = run if isinstance(run, Run) else find_run(run, runs)
    to = Path(to) if to else run.path / "report.html"
    if to.suffix.lower() not in (".html", ".htm") or not to.absolute().parent.is_dir():
        raise BadSetting(f"{str(to)!r}: the path of a .html in a folder that is there is wanted")
    page = report_page(gather_evidence(run))
    with whole_file(to) as part:
        part.write_text(page, encoding="utf-8", errors="replace")  # a file name need not be text
    return to


def report_page(
    shown: RunEvidence,
) -> str:  # HTML
    "The page, in the order in which a person asks."
    parts = [("learning", "How it learned", _learning(shown)), ("digits", "Class by class", _classes(shown)),
             ("mistakes", "What it takes for what", _confusion(shown)),
             ("worst", f"The {len(shown.worst)} it finds hardest", _worst(shown)),
             ("belief", "How far it can be believed", _belief(shown)),
             ("labels", "Labels that look wrong", _label_errors(shown)),
             ("seconds", "Where the time went", _seconds(shown)), ("settings", "Settings and circumstances",
                                                                  _circumstances(shown))]
    sections = "".join(f'<section id="{name}"><h2>{escape(title)}</h2>{body}</section>' for name, title, body in parts)
    links = "".join(f'<a href="#{name}">{escape(title)}</a>' for name, title, _ in parts)
    name = as_text(shown.run.path.name)
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}: digitfast report</title>'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<style>{STYLE.read_text(encoding="utf-8")}</style></head><body><header>{_head(shown)}<nav>{links}</nav>'
            f'</header><main>{sections}</main><footer>Made by digitfast {__version__}. The page is one file: it loads '
            'nothing from anywhere and holds no script.</footer></body></html>\n')


def _head(shown: RunEvidence) -> str:
    summary, evidence, settings = shown.run.summary, shown.evidence, shown.run.summary["settings"]
    right, (low, high) = evidence.right, evidence.interval
    epochs = f"{as_text(settings['epochs'])} epoch{'s' if settings['epochs'] != 1 else ''}"
    start = min(0.99, math.floor(20 * low) / 20)
    tells = {"test images": "They are for reporting: settings are better chosen on held-out training images "
                            "(--holdout 0.1).",
             "validation images": "They may choose settings; what is chosen is better reported on others, such as "
                                  "those of a test folder.",
             HELD_OUT: "That is for choosing settings; the test images were left alone, to report on what is chosen."
             }[shown.measured_on]
    notes = []
    if shown.same_images is False:
        notes.append("The images are no longer those of the training: their checksum is another.")
    if round(summary["accuracy"] * evidence.n) != right:
        notes.append(f"When it was trained, its accuracy was {percent(summary['accuracy'])} on "
                     f"{summary['validation_images']:,} images.")
    error = _calibration_error(shown)
    facts = [("mistakes", f"{evidence.n - right:,}"), ("calibration error", percent(error)),
             ("doubtful labels, training", f"{shown.training_errors.found:,}" if not shown.training_errors.missing
              else "–"), (f"doubtful labels, {shown.measured_on.split()[0]}", f"{shown.measured_errors.found:,}"),
             ("training", seconds_text(summary["seconds"]["training"])), ("weights", f"{summary['parameters']:,}")]
    tiles = "".join(f"<div><dt>{escape(key)}</dt><dd>{value}</dd></div>" for key, value in facts)
    return (f'<p class="over">digitfast report</p><h1>{as_text(shown.run.path.name)}</h1>'
            f'<p class="what">{as_text(settings["arch"])}, {epochs}, trained on '
            f'{summary["data"]["training_images"]:,} images of {as_text(settings["source"])}</p>'
            f'<div class="result"><div><p class="score">{100 * evidence.accuracy:.2f}<small>%</small></p>'
            f'<div class="interval">{interval_bar(interval_text(low, high), evidence.accuracy, low, high, start, 352)}'
            f'</div><div class="ends" aria-hidden="true"><span>{start:.0%}</span><span>100%</span></div>'
            f'<p><strong>{right:,} of {evidence.n:,} {shown.measured_on} are right</strong>, '
            f'{interval_text(low, high)}: the accuracy on ever more images of this kind most likely lies in '
            f'there. The network was not trained on these. {tells} {" ".join(notes)}</p></div>'
            f'<dl class="facts">{tiles}</dl></div>')


def _learning(shown: RunEvidence) -> str:
    history, steps = shown.run.history(), shown.run.steps()
    epochs = max(1, len(history))
    x = Axis("epoch", 0, epochs, least=1 if epochs > 4 else 0)
    per_epoch = (steps[-1][0] if steps else 1) / epochs

    def column(name: str) -> list[tuple[float, float]]:
        return [(i + 1, float(row[name])) for i, row in enumerate(history) if row.get(name)]

    valid, accuracy = column("valid_loss"), column("accuracy")
    train = [(step / per_epoch, loss) for step, _, loss in steps] or column("train_loss")
    rates = [(step / per_epoch, lr) for step, lr, _ in steps]
    y = axis_for("loss", [value for _, value in [*train, *valid]], log=True)
    charts = [figure('Loss <span class="key one">training</span><span class="key two">validation</span>', line_chart(
        f"Loss over {epochs} epochs, in training and in validation", x, y,
        [Line(train), Line(valid, "two", dots=epochs <= 40)]))]
    if rates:
        charts.append(figure("Learning rate", line_chart(
            "The learning rate of each step", x, axis_for("learning rate", [0, *(r for _, r in rates)], low=0),
            [Line(rates)])))
    if epochs > 1:
        charts.append(figure("Accuracy in validation", line_chart(
            "Accuracy after each epoch", x, axis_for("accuracy", [value for _, value in accuracy], percent_tick),
            [Line(accuracy, "two", dots=epochs <= 40)])))
    missing = "" if steps else ('<p class="missing">The run has no steps.csv: the learning rate and the loss of each '
                                "step were not kept, and what is drawn are the epochs' figures.</p>")
    rows = [[row.get(key) or "–" for key in history[0]] for row in history] if history else []
    table = f"<details><summary>Every epoch</summary>{rows_table(list(history[0]), rows)}</details>" if history else ""
    return (note("Both losses should fall and stay close; a validation loss that rises while the training loss falls "
                 "means that images are learned by heart. The training loss is a running mean over steps.")
            + f'<div class="charts">{"".join(charts)}</div>{missing}{table}')


def _classes(shown: RunEvidence) -> str:
    confusion, vocab = shown.evidence.confusion, shown.evidence.vocab
    found, there, said = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    spans = {key: [accuracy_interval(int(k), int(n)) if n else None for k, n in zip(found, total, strict=True)]
             for key, total in (("precision", said), ("recall", there))}
    start = math.floor(20 * min((span[0] for kind in spans.values() for span in kind if span), default=0)) / 20
    rows = []
    for i, label in enumerate(vocab):
        others = [(confusion[i, j], j) for j in range(len(vocab)) if j != i and confusion[i, j]]
        mistaken = f"{as_text(vocab[max(others)[1]])} ({max(others)[0]})" if others else "–"
        cells = f'<th scope="row">{as_text(label)}</th><td class="few">{there[i]:,}</td>'
        for key, total in (("precision", said[i]), ("recall", there[i])):
            span = spans[key][i]
            bar = interval_bar(f"{key} of {one_line_name(label)}", found[i] / total, *span, start) if span else ""
            cells += f'<td>{percent(found[i] / total) if total else "–"}</td><td class="bar">{bar}</td>'
        rows.append(f'<tr>{cells}<td class="said">{mistaken}</td></tr>')
    ends = f'<th class="bar">{start:.0%} to 100%</th>'
    head = ('<th scope="col">class</th><th scope="col" class="few">images</th>'
            f'<th scope="col">precision</th>{ends}<th scope="col">recall</th>{ends}'
            '<th scope="col" style="text-align:left">taken most for</th>')
    return (note("Precision: of the answers that say this class, how many are right. Recall: of the images of this "
                 "class, how many are found. Bars are 95 % intervals; where they overlap, classes may be equally good.")
            + f'<div class="wide"><table class="perdigit"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody>'
            '</table></div>')


def _confusion(shown: RunEvidence) -> str:
    confusion, vocab = shown.evidence.confusion, shown.evidence.vocab
    most = max(1, int((confusion - np.diag(np.diag(confusion))).max()))
    rows = []
    for i, label in enumerate(vocab):
        cells = []
        for j, count in enumerate(confusion[i].tolist()):
            if i == j:
                cells.append(f'<td class="diagonal">{count:,}</td>')
            elif not count:
                cells.append('<td class="none">·</td>')
            else:
                depth = 0.14 + 0.5 * math.log1p(count) / math.log1p(most)
                cells.append(f'<td style="background:rgb(var(--wash-two)/{depth:.2f})" '
                             f'title="{as_text(label)} taken for {as_text(vocab[j])}: {count:,}">{count:,}</td>')
        rows.append(f'<tr><th scope="row">{as_text(label)}</th>{"".join(cells)}</tr>')
    head = "".join(f'<th scope="col">{as_text(label)}</th>' for label in vocab)
    often = ", ".join(f"{one_line_name(a)} for {one_line_name(p)} ({n})"
                      for a, p, n in shown.evidence.most_confused())
    often = f" Most often: {often}." if often else ""
    return (note("A row is what the label says, a column what the network answered; what is right lies on the "
                 f"diagonal, and the darker a mistake the more frequent it is.{often}")
            + '<div class="wide"><table class="confusion"><caption>rows: label, columns: answer</caption><thead><tr>'
            f'<td></td>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>')


def _worst(shown: RunEvidence) -> str:
    return (note(f"The {shown.measured_on} of the highest loss, the worst first: those to whose label the network gave "
                 "the least probability. Under each: label → answer, the probabilities of both, and the file.")
            + _gallery(shown.worst))


def _belief(shown: RunEvidence) -> str:
    bins = [(sure / n, right / n, accuracy_interval(int(right), int(n)), int(n))
            for n, sure, right in reliability(shown.chances, shown.labels).tolist() if n]
    coverage = [(100 * part, value) for part, value in accuracy_over_coverage(
        shown.chances, shown.labels, COVERAGES).items()]
    error = _calibration_error(shown)
    calibrated = shown.run.summary.get("calibration")
    how = (f"Its logits are divided by a temperature of {calibrated['temperature']:g}, which the same held-out images "
           "set; the error is cross-validated, the chart is not." if calibrated else
           "Its probabilities are shown as the network gives them.")
    x, y = Axis("part that is answered (coverage)", 50, 100, "{:g}%".format), axis_for(
        "right among them", [value for _, value in coverage], percent_tick, high=1.0)
    some = [[f"{part:.0%}", percent(value)] for part, value in accuracy_over_coverage(
        shown.chances, shown.labels).items()]
    return (note("Of a hundred answers given with 90 % probability, ninety should be right: then the points lie on the "
                 f"dashed line. Expected calibration error, the mean distance from it: {percent(error)}; a perfect "
                 f"one is 0 %. Points above the line: more often right than it says; below: too sure of itself. Lines "
                 f"through points are 95 % intervals, larger points stand for more answers. {how}")
            + '<div class="charts">'
            + figure('Answers that are right <span class="key">a perfect network</span>', reliability_chart(
                "How often answers of each probability are right", bins))
            + figure("Accuracy among the surest answers", line_chart(
                "Accuracy among the surest answers, for each part that is answered", x, y, [Line(coverage)]))
            + '</div>' + note("Accuracy over coverage: whoever leaves the least sure answers to a person gets fewer "
                              "mistakes.")
            + rows_table(["answered", "right"], some))


def _calibration_error(shown: RunEvidence) -> float:
    "Measured on the images of the report, or where these have set the temperature, by cross-validation in the run."
    calibrated = shown.run.summary.get("calibration")
    return (calibrated["expected_calibration_error"] if calibrated else
            expected_calibration_error(shown.chances, shown.labels))


def _label_errors(shown: RunEvidence) -> str:
    return (note("Images whose label is confidently contradicted by networks that have not learned them, the most "
                 "doubtful first. A person has to decide: some labels are wrong, some digits are only odd. For this "
                 "five small networks were trained (confident learning, cross-validated): each answers for the fifth "
                 f"of the training images that it has not seen, and all together for the {shown.measured_on}.")
            + _doubtful("In the training images", shown.training_errors)
            + _doubtful(f"In the {shown.measured_on}", shown.measured_errors))


def _doubtful(title: str, errors: LabelErrors) -> str:
    if errors.missing:
        return f'<h3>{escape(title)}</h3><p class="missing">Not looked for: {as_text(errors.missing)}.</p>'
    confident, others = errors.shown[:errors.found], errors.shown[errors.found:]
    some = f", the first {len(confident)} of them here" if errors.found > len(confident) else ""
    return (f"<h3>{escape(title)}: {errors.found:,} of {errors.images:,}{some}</h3>" + _gallery(confident, "looks like")
            + (f'<p class="less">Contradicted as well, but less confidently:</p>{_gallery(others, "looks like")}'
               if others else ""))


def _seconds(shown: RunEvidence) -> str:
    seconds = shown.run.summary["seconds"]
    rest = seconds["total"] - seconds["preparation"] - seconds["training"]
    phases = {"images and network made ready": seconds["preparation"], "training and validation": seconds["training"],
              "measuring and saving": rest, **{f"this report: {name}": value for name, value in shown.seconds.items()}}
    longest = max(*phases.values(), 1e-9)
    rows = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{seconds_text(value)}</td><td class="bar">'
                   f'<i style="width:{100 * max(0.0, value) / longest:.1f}%"></i></td></tr>'
                   for name, value in phases.items())
    return (note(f"The run took {seconds_text(seconds['total'])} in all, from imported packages to the saved network. "
                 "The epochs' times are in the table of every epoch.")
            + f'<div class="wide"><table class="phases"><tbody>{rows}</tbody></table></div>')


def _circumstances(shown: RunEvidence) -> str:
    summary = shown.run.summary
    same = {True: "as now", False: "another now", None: "not known"}[shown.same_images]
    device = summary["device"]
    data = {"source": summary["settings"]["source"], "folder": summary["data"]["path"],
            "training images": f"{summary['data']['training_images']:,}",
            "measured on": f"{shown.evidence.n:,} {shown.measured_on}",
            "SHA-256 of names and pixels": f"{summary['data']['sha256']} ({same})",
            "device": f"{device['name']} ({device['type']}, {device['cpu_cores']} cores)",
            "precision": summary.get("precision", "–"), **summary["versions"]}
    return (note("With these settings the run can be repeated: digitfast fit --settings settings.ini, with the file of "
                 "the run folder. A figure belongs to the versions and the hardware that it was measured with.")
            + f'<div class="settings">{facts_table(summary["settings"])}{facts_table(data)}</div>')


def _gallery(pictures: Iterable[Shown], verb: str = "taken for") -> str:
    items = []
    for p in pictures:
        right, file = p.answer == p.label, as_text(p.file).replace("/", "/<wbr>")
        words = f"label {as_text(p.label)}, {'answer' if right else verb} {as_text(p.answer)}"
        said = "right\">✓" if right else f"wrong\">→ {as_text(p.answer)}"
        items.append(f'<li><img alt="{words}" src="{png_address(p.image)}"><b>{as_text(p.label)} <span class="{said}'
                     f'</span></b>says {percent(p.probability, 1)}'
                     + ("" if right else f"<br>label {percent(p.of_label, 1)}") + f"<code>{file}</code></li>")
    return f'<ul class="digits">{"".join(items)}</ul>'
