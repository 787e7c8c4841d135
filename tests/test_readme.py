"""The README cannot drift: its commands, its Python, its table of runs and its table of modules are checked."""
import hashlib
import json
import re
import shlex
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


def table(heading: str) -> list[list[str]]:
    "The rows of the first table under `heading`, without its head."
    lines = README.split(f"## {heading}\n")[1].split("\n## ")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")][2:]


def test_commands_are_those_of_the_command_line():
    commands = typer.main.get_command(cli.app).commands
    named = [re.match(r"`digitfast ([\w-]+)", row[0]).group(1) for row in table("At the prompt")]
    assert sorted(named) == sorted(commands)


@pytest.mark.parametrize("line", sorted({*re.findall(r"^digitfast .* --.*$", README, re.M),
                                         *re.findall(r"`(digitfast [a-z-]+ --[^`]*)`", README)}))
def test_every_option_exists(line):
    options_exist(line)


def options_exist(line: str) -> None:
    "Fail for a `digitfast …` of a command or with an option that there is not."
    command = typer.main.get_command(cli.app).commands
    words = shlex.split(line.split("#")[0])
    if words[1] != "COMMAND":
        names = {name for param in command[words[1]].params for name in (*param.opts, *param.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= names | {"--help"}


def test_targets_of_make_exist():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert set(re.findall(r"make ([\w-]+)", README)) <= set(targets)


def test_each_result_is_a_named_run():
    rows = [re.match(r"`([\w-]+)`", row[0]).group(1) for row in table("Results")]
    assert set(rows) == set(named_runs(ROOT / "settings.ini"))
    for row in table("Results"):
        run = re.match(r"`([\w-]+)`(?: with `--epochs (\d+)`)?", row[0])
        assert row[2] == (run.group(2) or named_runs(ROOT / "settings.ini")[run.group(1)]["epochs"])
        assert re.fullmatch(r"\d+\.\d+( ± \d+\.\d+)? %", row[3]) and int(row[4]) >= 1


def test_accuracies_are_those_of_the_raw_results():
    results = json.loads((ROOT / "benchmarks/results/accuracies.json").read_text())
    rows = {row[0].replace("`", "").replace(" with", ""): row for row in table("Results")}
    assert rows.pop("digitnet-reader")[3].replace(" ", "") == other_sets()["MNIST, test images"][2]
    for name, row in rows.items():
        accuracies = [100 * run["accuracy"] for run in results[name]]
        spread = f" ± {stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
        assert row[3:5] == [f"{mean(accuracies):.2f}{spread} %", str(len(accuracies))], name
    assert len({run["device"]["name"] for runs in results.values() for run in runs}) == 1


def other_sets() -> dict[str, list[str]]:
    "The figures of each set in the last measurement, by its name."
    lines = (ROOT / "benchmarks/results/sets.txt").read_text(encoding="utf-8").splitlines()[1:]
    return {line[:46].strip(): line[46:].split() for line in lines if not line.startswith(("expected", "accuracy"))}


def test_other_sets_are_those_of_the_raw_results():
    rows = [line.strip("|").split("|") for line in README.split("| set | n |")[1].split("\n\n")[0].splitlines()[2:]]
    assert {row[0].strip(): [cell.strip() for cell in row[1:] if cell.strip()] for row in rows} == other_sets()


def test_speed_is_that_of_the_last_bench():
    results = json.loads((ROOT / "benchmarks/results/xeon-2-cores.json").read_text())
    assert results_table(results) in README and not results["quick"]


def test_speed_on_a_gpu_is_that_of_the_raw_results():
    results = json.loads((ROOT / "benchmarks/results/h100.json").read_text())
    assert results["device"]["name"] in README.replace("\n", " ")
    rows = table("On a GPU")
    for row, target in zip(rows, ("99.0 %", "99.5 %"), strict=True):
        runs, plain = results[target]["runs"], results[target]["plain_steps"]
        accuracies, seconds = ([run[key] for run in runs] for key in ("accuracy", "seconds"))
        inside = mean(run["seconds"] - run["warm_up_and_capture"] for run in runs)
        assert row[1:] == [f"{100 * mean(accuracies):.3f} ± {100 * stdev(accuracies):.3f} %", f"{mean(seconds):.3f}",
                           f"{inside:.3f}", f"{mean(run['seconds'] for run in plain):.3f}", str(len(runs))]
    resnet = results["resnet18, 1 epoch"]
    ours, theirs = median(run["training"] for run in resnet["ours"]), resnet["theirs"][0]["training"]
    assert f"takes {ours:.2f} s" in README and f"{theirs:.1f} s (once): {ours / theirs:.3f}." in README


def test_wings_are_those_of_the_package():
    wings = {row[0].strip("`/"): row[1] for row in table("How it is built")}
    packed = wings.pop("packed")
    docstrings = {wing: import_module(f"digitfast.{wing}").__doc__ for wing in wings}
    assert packed and {wing.name for wing in PACKAGE.iterdir() if (wing / "__init__.py").is_file()} == set(wings)
    assert {wing: text[0].upper() + text[1:] + "." for wing, text in wings.items()} == {
        wing: text[0].upper() + text[1:] for wing, text in docstrings.items()}


def test_python_runs(digits, many_digits, monkeypatch, tmp_path):
    import digitfast
    monkeypatch.setattr(digitfast, "digits_path", lambda: many_digits)
    monkeypatch.chdir(tmp_path)
    page = Image.new("L", (300, 200), 255)
    page.paste(0, (90, 40), Image.open(digits / "training/0/1.png").resize((112, 112)))
    page.save("photo.jpg")
    training, reading = re.findall(r"```python\n(.*?)```", README, re.S)
    namespace = {}
    exec(training, namespace)
    assert namespace["learn"].recorder.values[-1][2] > 0.8
    exec(reading, namespace)
    assert namespace["reading"].text == "0"


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
    assert "CC BY-SA 3.0" in README and (ROOT / "LICENSE").read_text().lstrip().startswith("Apache License")


@pytest.mark.parametrize("name", ["digitnet.safetensors", "ink.safetensors", "ink.onnx"])
def test_model_cards_are_those_of_the_files(name):
    data = ROOT / "digitfast" / "packed"
    card = (data / "README.md").read_text(encoding="utf-8").split(f"\n# {name}:")[1].split("\n# ")[0]
    assert re.search(r"SHA-256 \| `(\w+)`", card).group(1) == hashlib.sha256((data / name).read_bytes()).hexdigest()
