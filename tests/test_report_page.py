"The page shows everything, loads nothing, and shows names that people chose as text."
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import CHROMIUM
from PIL import Image

from digitfast import BadSetting, RunNotFound, train_run, write_report
from digitfast.report import gather as report
from digitfast.report.gather import LabelErrors
from digitfast.report.page import report_page
from digitfast.runs.folders import HISTORY, STEPS, Run

VOID = {"meta", "img", "br", "wbr", "circle", "line", "polyline"}
BAD = '<script>alert("1")<'


class Page(HTMLParser):
    "Text by section, and elements with their attributes; elements are closed in order."

    def __init__(self, html):
        super().__init__()
        self.text, self.elements, self.open, self.section = {"": ""}, [], [], ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "section":
            self.section = dict(attrs)["id"]
            self.text[self.section] = ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text[self.section] += data.replace("\u00a0", " ")

    def count(self, tag, **attrs):
        return sum(name == tag and attrs.items() <= given.items() for name, given in self.elements)


@pytest.fixture(scope="module")
def run(digits, tmp_path_factory):
    return train_run(source=str(digits), arch="simple", bs=32, lr=0.01, epochs=8,
                     runs=str(tmp_path_factory.mktemp("runs")))


@pytest.fixture(scope="module")
def evidence(run):
    with pytest.MonkeyPatch.context() as patch:  # two label errors in training, none elsewhere
        def chances(*dls):
            sure = [torch.nn.functional.one_hot(dl.labels, dl.c).double().mul(0.9).add(0.01).numpy()
                    for dl in dls]
            sure[0][[3, 44]] = np.roll(sure[0][[3, 44]], 1, axis=1)
            return sure
        patch.setattr(report, "cross_validated_chances", chances)
        return report.gather_evidence(run)


@pytest.fixture(scope="module")
def html(evidence):
    return report_page(evidence)


def test_every_part_is_there(run, evidence, html):
    page = Page(html)
    assert list(page.text) == ["", "learning", "digits", "mistakes", "worst", "belief", "labels",
                               "seconds", "settings"]
    right = round(run.summary["accuracy"] * 120)
    assert f"{100 * run.summary['accuracy']:.2f}%" in page.text[""]
    assert f"{right} of 120 test images are right" in page.text[""]
    assert "95 % interval" in page.text[""]
    assert page.count("polyline") >= 4
    assert page.count("img") == 40 + 2
    assert "training/" in page.text["labels"]
    assert "2 of 300" in page.text["labels"]
    assert evidence.worst[0].file in page.text["worst"]
    assert "testing/" in page.text["worst"]
    for key, value in run.summary["settings"].items():
        assert key in page.text["settings"]
        assert ("–" if value is None else str(value)) in page.text["settings"]
    for text in (run.summary["data"]["sha256"], *run.summary["versions"].values()):
        assert text in page.text["settings"]
    assert f"{run.summary['seconds']['training']:.1f} s" in page.text["seconds"]
    assert all("." in text for text in list(page.text.values())[1:])  # a sentence on how to read it
    assert r"\xa0" not in html  # none of our own texts is shown with escapes
    assert len(html) < 200_000


def test_precision_recall_and_confusion_are_scikit_learns(evidence, html):
    from sklearn.metrics import confusion_matrix, precision_score, recall_score
    answers = evidence.chances[:, :-1].argmax(axis=1)
    kind = {"average": None, "zero_division": 0}
    html = re.sub(r">\s+<", "><", html)
    rows = re.findall(r'<th scope="row">(\d)</th><td class="few">(\d+)</td><td>([\d.]+).%</td>'
                      r'<td class="bar">.*?</td><td>([\d.]+).%</td>', html)
    assert [row[0] for row in rows] == list("0123456789")
    precisions = precision_score(evidence.labels, answers, **kind)
    recalls = recall_score(evidence.labels, answers, **kind)
    assert [row[2] for row in rows] == [f"{100 * precision:.2f}" for precision in precisions]
    assert [row[3] for row in rows] == [f"{100 * recall:.2f}" for recall in recalls]
    body = html.split('class="confusion"')[1].split("</table>")[0].split("<tbody>")[1]
    cells = [[int(cell.replace("·", "0")) for cell in re.findall(r"<td[^>]*>([\d·]+)</td>", row)]
             for row in body.split("</tr>")[:-1]]
    assert (np.array(cells) == confusion_matrix(evidence.labels, answers)).all()


def test_nothing_leads_elsewhere(html):
    page = Page(html)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for _, attrs in page.elements:
        for name, value in attrs.items():
            assert not name.startswith("on"), name
            if name in ("src", "href", "srcset", "data", "action", "poster", "xlink:href"):
                assert value.startswith(("#", "data:image/png;base64,")), value
    assert "://" not in html and "url(" not in html and "@import" not in html
    targets = {attrs["href"] for tag, attrs in page.elements if tag == "a"}
    assert targets == {"#" + section for section in page.text if section}
    assert all(attrs["alt"] for tag, attrs in page.elements if tag == "img")
    assert all(attrs["aria-label"] for tag, attrs in page.elements if tag == "svg")


@pytest.fixture
def hostile(tmp_path):
    "A run on classes and files whose names are traps."
    rng = np.random.default_rng(0)
    for split, n in (("train", 4), ("valid", 3)):
        for label in ("<script>alert(1)<", 'b" onload="alert(2)', "c&amp;\u202e"):
            folder = tmp_path / "bad & <i>" / split / label
            folder.mkdir(parents=True)
            for i in range(n):
                name = f"<img src=x onerror=alert({i})>.png".encode() + b"\xff"[:i] + b".png"
                pixels = rng.integers(0, 256, (28, 28), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
                path = f"{folder}/{name.decode('utf-8', 'surrogateescape')}"
                (folder / f"{i}.png").rename(path)
    return train_run(source=str(tmp_path / "bad & <i>"), bs=4, runs=str(tmp_path / "runs"),
                     name="<b>")


def test_names_show_as_text(hostile, tmp_path):
    html = write_report(hostile, tmp_path / "r.html").read_text(encoding="utf-8")
    page = Page(html)
    assert_has_only_our_markup(page)
    assert "<script>alert(1)<" in page.text["digits"]
    assert 'b" onload="alert(2)' in page.text["mistakes"]
    assert "<img src=x onerror=alert(1)>" in page.text["worst"]
    assert "\u202e" not in html
    assert "bad & <i>" in page.text["settings"]
    assert "<b>" in page.text[""]
    titles = [attrs["title"] for tag, attrs in page.elements if tag == "td" and "title" in attrs]
    assert any(title.startswith('b" onload="alert(2) taken for ') for title in titles)
    labels = [attrs["alt"] for tag, attrs in page.elements if tag == "img"]
    assert any('label b" onload="alert(2), ' in label for label in labels)


def assert_has_only_our_markup(page):
    assert page.count("script") == 0
    assert page.count("img", src="x") == 0
    assert all(attrs["style"].startswith("width:") for tag, attrs in page.elements if tag == "i")
    assert {name for _, attrs in page.elements for name in attrs} == {
        "alt", "aria-hidden", "aria-label", "charset", "class", "content", "cx", "cy", "href",
        "http-equiv", "id", "lang", "name", "points", "r", "role", "scope", "src", "style",
        "text-anchor", "title", "viewbox", "x", "x1", "x2", "y", "y1", "y2"}


def test_whatever_a_run_says_shows_as_text(evidence, run, tmp_path):
    path = tmp_path / BAD
    shutil.copytree(run.path, path)
    rows = (path / HISTORY).read_text().splitlines()
    rows = [f'{row},"{BAD.replace(chr(34), chr(34) * 2)}"' for row in rows]
    (path / HISTORY).write_text("\n".join(rows))
    summary = run.summary
    settings = {**summary["settings"], "arch": BAD, "epochs": BAD, "source": BAD, BAD: BAD}
    data = {**summary["data"], "path": BAD, "sha256": BAD}
    device = {**summary["device"], "name": BAD, "type": BAD, "cpu_cores": BAD}
    summary = {**summary, "settings": settings, "data": data, "device": device, "precision": BAD,
               "versions": {BAD + "2": BAD}}
    picture = replace(evidence.worst[0], file=BAD, label=BAD, answer=BAD + "2")
    vocab = [f"{BAD}{i}" for i in range(10)]
    page = Page(report_page(replace(
        evidence, run=Run(path, summary), evidence=replace(evidence.evidence, vocab=vocab),
        worst=(picture, replace(picture, answer=BAD)), seconds={BAD: 1.0},
        training_errors=LabelErrors(images=1, missing=BAD),
        measured_errors=LabelErrors(images=1, found=1, shown=(picture, picture)))))
    assert_has_only_our_markup(page)
    assert {section for section, text in page.text.items() if BAD not in text} == {"belief"}


@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium on the PATH: apt-get install chromium")
def test_chromium_opens_it_and_asks_nobody(html, hostile, tmp_path):
    (tmp_path / "page.html").write_text(html)
    write_report(hostile, tmp_path / "bad.html")
    for name in ("page.html", "bad.html"):
        shown = in_chromium(tmp_path / name)
        assert not shown.asked
        assert not shown.console
        assert np.asarray(shown.picture).std() > 5  # not an empty page
    trap = '<body><img src="http://127.0.0.1:9/x.png"><script>console.error("seen")</script>'
    (tmp_path / "trap.html").write_text(html.replace("<body>", trap))
    shown = in_chromium(tmp_path / "trap.html")  # the page's policy stops both; the console says so
    assert not shown.asked
    assert len(shown.console) == 2
    without_policy = re.sub("<meta http-equiv[^>]*>", "", html)
    (tmp_path / "trap.html").write_text(without_policy.replace("<body>", trap))
    shown = in_chromium(tmp_path / "trap.html")  # without it, it would have been noticed
    assert shown.asked == ["http://127.0.0.1:9/x.png"]
    assert any("seen" in line for line in shown.console)


def in_chromium(path):
    "Return the addresses that a page asks for, the lines of the console, and a picture of it."
    log, picture = path.with_suffix(".json"), path.with_suffix(".png")
    done = subprocess.run(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
         "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--disable-extensions", "--disable-default-apps",
         "--enable-logging=stderr", f"--user-data-dir={path.with_suffix('')}-profile",
         f"--log-net-log={log}", f"--screenshot={picture}", "--window-size=1200,3000",
         path.as_uri()],
        capture_output=True, text=True, timeout=300, check=True)
    net = json.loads(log.read_text())
    kinds = net["constants"]["logEventTypes"]
    started = [event["params"] for event in net["events"]
               if event["type"] == kinds["URL_REQUEST_START_JOB"]
               and "url" in event.get("params", {})]
    asked = [request["url"] for request in started
             if request["initiator"] != "not an origin"]  # the browser's own: clock, updates
    return SimpleNamespace(asked=asked, picture=Image.open(picture).convert("L"),
                           console=[line for line in done.stderr.splitlines() if "CONSOLE" in line])


def test_a_run_without_steps_says_so(evidence, run):
    (run.path / STEPS).rename(run.path / "kept")
    try:
        page = Page(report_page(evidence))
        assert "no steps.csv" in page.text["learning"]
        assert page.count("polyline") >= 2
    finally:
        (run.path / "kept").rename(run.path / STEPS)


def test_changed_images_and_another_accuracy_are_said(evidence):
    run = replace(evidence.run, summary={**evidence.run.summary, "accuracy": 0.5})
    text = Page(report_page(replace(evidence, run=run, same_images=False))).text
    words = " ".join(text[""].split())
    assert "no longer those of the training" in words
    assert "was 50.00 % on 120 images" in words
    assert "different now" in text["settings"]


def test_where_it_is_written(run, tmp_path, monkeypatch, evidence):
    from digitfast.report import page as module
    monkeypatch.setattr(module, "gather_evidence", lambda run, device: evidence)
    assert write_report(run.path.name, runs=run.path.parent) == run.path / "report.html"
    assert (run.path / "report.html").read_text().startswith("<!doctype html>")
    write_report(run)  # the one that is there is replaced
    for wrong in (tmp_path / "r.pdf", tmp_path / "nowhere/r.html", tmp_path / "settings.ini"):
        with pytest.raises(BadSetting, match="a .html in a folder"):
            write_report(run, wrong)
    with pytest.raises(RunNotFound):
        write_report("absent", runs=tmp_path)
    (run.path / "report.html").unlink()
