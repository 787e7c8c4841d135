"README and docs/ cannot drift: their commands, Python, tables and links are checked."
import hashlib
import json
import re
import shlex
import tomllib
from configparser import ConfigParser
from importlib import import_module
from pathlib import Path
from statistics import mean, median, stdev

import pytest
import typer
from PIL import Image
from test_architecture import PACKAGE

from digitfast.bench.comparisons import results_table
from digitfast.cli import app as cli
from digitfast.runs.settings import named_runs

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
GENERATED = ("api.md", "commands.md")
WRITTEN = [file for file in sorted((ROOT / "docs").glob("*.md")) if file.name not in GENERATED]
PAGES = {"README.md": README, **{file.name: file.read_text(encoding="utf-8") for file in WRITTEN}}
ALL = "\n".join(PAGES.values())


def table(page: str, heading: str) -> list[list[str]]:
    "Return the rows of the first table under `heading`, without its head."
    lines = PAGES[page].split(f"# {heading}\n")[1].split("\n## ")[0].splitlines()
    return cells([line for line in lines if line.startswith("|")])


def cells(lines: list[str]) -> list[list[str]]:
    "Return the rows of a table without its head."
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_commands_are_those_of_the_command_line():
    commands = typer.main.get_command(cli.app).commands
    rows = table("README.md", "At the prompt")
    named = [re.match(r"`digitfast ([\w-]+)", row[0]).group(1) for row in rows]
    assert sorted(named) == sorted(commands)


SHELL = "".join(re.findall(r"```sh\n(.*?)```", ALL, re.S))
COMMANDS = {
    *re.findall(r"^digitfast .*$", SHELL, re.M),
    *re.findall(r"`(?:\w+=\w+ )?(digitfast [a-z][^`…]+)`", ALL),
    *re.findall(r"-m (digitfast [a-z-]+)", ALL),
}


@pytest.mark.parametrize("line", sorted(COMMANDS))
def test_every_option_exists(line):
    options_exist(line)


def options_exist(line: str) -> None:
    "Fail for a `digitfast …` of a command or with an option that there is not."
    command = typer.main.get_command(cli.app).commands
    words = shlex.split(line.split("#")[0])
    if words[1] != "COMMAND":
        params = command[words[1]].params
        names = {name for param in params for name in (*param.opts, *param.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= names | {"--help"}


def test_targets_of_make_exist():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert set(re.findall(r"(?:^|`)make ([\w-]+)", ALL, re.M)) <= set(targets)


def test_extras_exist():
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert {*re.findall(r"pip install '\.\[(\w+)\]'", ALL)} <= {*setup["options.extras_require"]}


def test_named_runs_exist():
    assert {*re.findall(r"--run ([a-z][\w-]+)", ALL)} <= {*named_runs(ROOT / "settings.ini")}


def test_each_result_is_a_named_run():
    rows, runs = table("results.md", "Results"), named_runs(ROOT / "settings.ini")
    assert {re.match(r"`([\w-]+)`", row[0]).group(1) for row in rows} == set(runs)
    for row in rows:
        run = re.match(r"`([\w-]+)`(?: with `--epochs (\d+)`)?", row[0])
        assert row[2] == (run.group(2) or runs[run.group(1)]["epochs"])
        assert re.fullmatch(r"\d+\.\d+( ± \d+\.\d+)? %", row[3]) and int(row[4]) >= 1


def test_accuracies_are_those_of_the_raw_results():
    results = json.loads((ROOT / "benchmarks/results/accuracies.json").read_text())
    rows = {row[0].replace("`", "").replace(" with", ""): row
            for row in table("results.md", "Results")}
    for name, row in rows.items():
        accuracies = [100 * run["accuracy"] for run in results[name]]
        spread = f" ± {stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
        assert row[3:5] == [f"{mean(accuracies):.2f}{spread} %", str(len(accuracies))], name
    assert len({run["device"]["name"] for runs in results.values() for run in runs}) == 1


def other_sets() -> dict[str, list[str]]:
    "The figures of each set in the last measurement, by its name."
    lines = (ROOT / "benchmarks/results/sets.txt").read_text(encoding="utf-8").splitlines()[1:]
    return {line[:46].strip(): line[46:].split() for line in lines
            if not line.startswith(("expected", "accuracy"))}


def test_other_sets_are_those_of_the_raw_results():
    rows = cells(PAGES["reading.md"].split("| set | n |")[1].split("\n\n")[0].splitlines())
    assert {row[0]: [cell for cell in row[1:] if cell] for row in rows} == other_sets()


def test_other_readers_are_those_of_the_raw_results():
    lines = (ROOT / "benchmarks/results/peers.txt").read_text(encoding="utf-8").splitlines()[2:5]
    rows = table("where-this-stands.md", "Other readers on the same pictures")
    assert rows == [line.split() for line in lines]


def test_speed_is_that_of_the_last_bench():
    results = json.loads((ROOT / "benchmarks/results/xeon-2-cores.json").read_text())
    assert results_table(results) in PAGES["results.md"] and not results["quick"]


def test_speed_on_a_gpu_is_that_of_the_raw_results():
    results = json.loads((ROOT / "benchmarks/results/h100.json").read_text())
    page = PAGES["results.md"]
    assert results["device"]["name"] in page.replace("\n", " ")
    rows = table("results.md", "On a GPU")
    for row, target in zip(rows, ("99.0 %", "99.5 %"), strict=True):
        runs, plain = results[target]["runs"], results[target]["plain_steps"]
        accuracies, seconds = ([run[key] for run in runs] for key in ("accuracy", "seconds"))
        inside = mean(run["seconds"] - run["warm_up_and_capture"] for run in runs)
        assert row[1:] == [
            f"{100 * mean(accuracies):.3f} ± {100 * stdev(accuracies):.3f} %",
            f"{mean(seconds):.3f}", f"{inside:.3f}",
            f"{mean(run['seconds'] for run in plain):.3f}", str(len(runs))]
    resnet = results["resnet18, 1 epoch"]
    ours = median(run["training"] for run in resnet["ours"])
    theirs = resnet["theirs"][0]["training"]
    assert f"takes {ours:.2f} s" in page
    assert f"{theirs:.1f} s (once): {ours / theirs:.3f}." in page


def test_wings_are_those_of_the_package():
    wings = {row[0].strip("`/"): row[1] for row in table("architecture.md", "Architecture")}
    packed = wings.pop("packed")
    docstrings = {wing: import_module(f"digitfast.{wing}").__doc__ for wing in wings}
    assert packed
    subpackages = {wing.name for wing in PACKAGE.iterdir() if (wing / "__init__.py").is_file()}
    assert subpackages == set(wings)
    assert {wing: text[0].upper() + text[1:] + "." for wing, text in wings.items()} == {
        wing: text[0].upper() + text[1:] for wing, text in docstrings.items()}


def test_files_of_the_architecture_exist():
    files = re.findall(r"`(\w+/\w+\.py)`", PAGES["architecture.md"])
    assert [file for file in files if not (PACKAGE / file).is_file()] == []


def test_functions_of_the_architecture_exist():
    missing = []
    for step in re.findall(r"^\d\. (.*?)(?=^\d\. |^#|\Z)", PAGES["architecture.md"], re.M | re.S):
        files = re.findall(r"`(\w+/\w+\.py)`", step)
        text = "".join((PACKAGE / file).read_text(encoding="utf-8") for file in files)
        missing += [name for name in re.findall(r"`([a-z]+_[a-z_]+)`", step)
                    if not re.search(rf"\b{name}\b", text)]
    assert missing == []


def test_layers_of_the_architecture_are_those_of_the_contract():
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    contracts = tools["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    shown = PAGES["architecture.md"].split("```\n")[1].splitlines()
    assert shown == [layer for layer in layers if layer != "__main__"]


def test_the_summary_of_the_readme_is_that_of_the_pages():
    pages = PAGES["results.md"] + PAGES["reading.md"]
    rows = table("README.md", "How accurate, how fast")
    figures = {figure for row in rows for figure in re.findall(r"\d+\.\d+(?: ± \d+\.\d+)?", row[1])}
    assert len(rows) == 9
    assert {figure for figure in figures if figure not in pages} == set()


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 130
    assert len(README.split()) <= 1200


@pytest.fixture
def in_a_notebook(digits, many_digits, monkeypatch, tmp_path):
    "An empty folder with photo.jpg, small digits instead of MNIST, and the same seed every time."
    from fastai.torch_core import set_seed

    import digitfast
    set_seed(0)
    monkeypatch.setattr(digitfast, "digits_path", lambda: many_digits)
    monkeypatch.chdir(tmp_path)
    page = Image.new("L", (300, 200), 255)
    page.paste(0, (90, 40), Image.open(digits / "training/0/1.png").resize((112, 112)))
    page.save("photo.jpg")


def run_python(page: str) -> dict:
    "Run the blocks of Python on a page, one after the other, and return their names."
    namespace = {}
    for block in re.findall(r"```python\n(.*?)```", PAGES[page], re.S):
        exec(block, namespace)
    return namespace


def test_python_of_the_readme_trains(in_a_notebook):
    assert run_python("README.md")["learn"].recorder.values[-1][2] > 0.8


def test_python_of_the_training_page_trains(in_a_notebook):
    assert run_python("training.md")["learn"].validate()[1] > 0.3  # of ten classes


def test_python_of_the_page_about_digits(in_a_notebook):
    assert len(run_python("digits.md")["dls"].train_ds) == 1618


def test_python_that_reads(in_a_notebook):
    assert run_python("reading.md")["reading"].text == "0"


def test_no_other_page_has_python_but_the_readmes():
    blocks = {page: re.findall(r"```python\n(.*?)```", text, re.S) for page, text in PAGES.items()}
    assert blocks.pop("index.md") == blocks.pop("README.md")
    assert {page for page, found in blocks.items() if found} == {
        "training.md", "digits.md", "reading.md"}


def anchors(file: Path) -> set[str]:
    "Return the anchors that GitHub gives the headings of a page."
    headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    folder = ROOT if page == "README.md" else ROOT / "docs"
    for target, anchor in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", PAGES[page]):
        file = folder / target if target else folder / page
        assert file.is_file(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"


def test_licences_are_named():
    assert "CC BY-SA 3.0" in README
    assert (ROOT / "LICENSE").read_text().lstrip().startswith("Apache License")


@pytest.mark.parametrize("name", ["digitnet.safetensors", "ink.safetensors", "ink.onnx"])
def test_model_cards_are_those_of_the_files(name):
    data = ROOT / "digitfast" / "packed"
    cards = (data / "README.md").read_text(encoding="utf-8")
    card = cards.split(f"\n# {name}:")[1].split("\n# ")[0]
    stated = re.search(r"SHA-256 \| `(\w+)`", card).group(1)
    assert stated == hashlib.sha256((data / name).read_bytes()).hexdigest()
