"The pages in docs/ match the code, and what they tell newcomers to do works."
import re
from pathlib import Path

import pytest
import typer
from PIL import Image
from test_readme import options_exist

import digitfast
from digitfast.cli import app as cli

ROOT = Path(__file__).parent.parent
COMING_FROM = (ROOT / "docs/coming_from.md").read_text(encoding="utf-8")
SECTIONS = COMING_FROM.split("\n## ")[1:]


def cells(section: str) -> list[str]:
    "What stands in backticks in the second column."
    rows = [line.split(" | ")[1] for line in section.splitlines() if line.startswith("| ")][2:]
    return [cell for row in rows for cell in re.findall(r"`([^`]+)`", row)]


def test_pages_are_those_of_the_docstrings(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from doc_pages import PAGES
    for path, page in PAGES.items():
        written = path.read_text(encoding="utf-8")
        assert written == page(), f"{path} is not that of the code: run make docs"


def test_pages_name_all_there_is():
    api = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    commands = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    for name in {*digitfast.__all__} - {"__version__"}:
        assert f"\n### {name}\n" in api
    for name, command in typer.main.get_command(cli.app).commands.items():
        section = commands.split(f"\n## {name}\n")[1].split("\n## ")[0]
        assert command.help in section and all(param.help in section for param in command.params)
    assert "0x" not in api and str(ROOT) not in api + commands


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.split("\n")[0])
def test_ten_lines_each(section):
    assert sum(line.startswith("| ") for line in section.splitlines()) == 2 + 10


def test_commands_for_newcomers_exist():
    commands = re.findall(r"`(digitfast [^`…]+)`", COMING_FROM)
    assert len(commands) >= 15
    for command in commands:
        options_exist(command)
    runs = digitfast.runs.settings.named_runs(ROOT / "settings.ini")
    assert {*re.findall(r"--run ([\w-]+)", COMING_FROM)} <= {*runs}


def test_python_for_newcomers_runs(copy_of_digits, monkeypatch, tmp_path, trained):
    monkeypatch.setattr(digitfast, "digits_path", lambda: copy_of_digits)
    monkeypatch.chdir(tmp_path)
    page = Image.new("L", (300, 200), 255)
    page.paste(0, (90, 40), Image.open(copy_of_digits / "training/0/1.png").resize((112, 112)))
    page.save("photo.jpg")
    page.save("x.jpg")
    digitfast.save_predictor(digitfast.Predictor.packed(), "model.safetensors")
    for section in SECTIONS:
        namespace = {name: getattr(digitfast, name) for name in digitfast.__all__}
        lines = [cell for cell in cells(section) if re.match(r"[\w.]+( = \w+)?\(", cell)]
        assert lines
        for line in lines:
            exec(line, namespace)
        if "learn" in namespace:
            assert len(namespace["learn"].recorder.values) >= 1


QUESTIONS = (ROOT / "docs/questions.md").read_text(encoding="utf-8").split("\n## ")[1:]


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.split("\n")[0])
def test_answers_are_short(question):
    assert len(question.strip().splitlines()[2:]) <= 3
    assert re.search(r"`(\w+=\d )?digitfast |`[^`]*\(.*\)`", question)


def test_python_of_the_answers_runs(copy_of_digits, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("runs/NAME").mkdir(parents=True)
    digitfast.save_predictor(digitfast.Predictor.packed(), "runs/NAME/model.safetensors")
    namespace = {name: getattr(digitfast, name) for name in digitfast.__all__}
    namespace["path"] = copy_of_digits
    lines = re.findall(r"`((?:\w+ = )?open_predictor\(.*?\)|dls = [^`]*)`", "".join(QUESTIONS))
    for line in lines:
        exec(line, namespace)
    assert len(lines) == 3


def test_links_lead_somewhere():
    for page in (ROOT / "docs").glob("*.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), target


def test_the_changelog_has_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## (.+)$", text, re.M).group(1).startswith(digitfast.__version__)
