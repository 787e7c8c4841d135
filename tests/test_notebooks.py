"""The tutorials are executed, small, clean, and each leads to the next."""
import ast
import json
import re
from pathlib import Path

import pytest

import digitfast

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))
LARGEST, LARGEST_TOGETHER = 150_000, 800_000  # bytes
MACHINE = re.compile(
    r"(?<!\w)/(?:home|root|Users|tmp|work|var)/|[A-Z]:\\\\"
)  # a path that is another one elsewhere

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path: Path, kind: str) -> list[dict]:
    return [
        cell
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == kind
    ]


def text(path: Path, kind: str) -> str:
    return "\n".join("".join(cell["source"]) for cell in cells(path, kind))


def outputs(path: Path) -> list[dict]:
    return [output for cell in cells(path, "code") for output in cell["outputs"]]


@every_notebook
def test_executed_without_a_fault(path):
    kinds = [output.get("name", output["output_type"]) for output in outputs(path)]
    assert len(kinds) >= 5 and not {"error", "stderr"} & set(kinds)
    assert any(cell["outputs"] for cell in cells(path, "code")[-4:])  # to the end


@every_notebook
def test_outputs_are_of_every_machine(path):
    shown = json.dumps(
        [
            {
                **output,
                "data": {
                    kind: value
                    for kind, value in output.get("data", {}).items()
                    if not kind.startswith("image/")
                },
            }
            for output in outputs(path)
        ]
    )
    assert not MACHINE.search(shown)
    assert not re.search(r"progress-bar|<style>|Warning|\\r|█", shown)


def test_small_enough_for_a_repository():
    sizes = {path.name: path.stat().st_size for path in NOTEBOOKS}
    assert not {name: size for name, size in sizes.items() if size > LARGEST}
    assert sum(sizes.values()) <= LARGEST_TOGETHER


@every_notebook
def test_begins_with_what_it_is_about(path):
    title, about = "".join(cells(path, "markdown")[0]["source"]).split("\n\n")[:2]
    assert re.fullmatch(r"# \S.+", title) and len(about) >= 80


@every_notebook
def test_names_of_digitfast_exist(path):
    named = {
        alias.name
        for node in ast.walk(ast.parse(text(path, "code")))
        if isinstance(node, ast.ImportFrom) and node.module == "digitfast"
        for alias in node.names
    }
    assert named and named <= set(digitfast.__all__)


@every_notebook
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text(path, "markdown")):
        assert (path.parent / target).exists(), target


def test_each_leads_to_the_next():
    for path, following in zip(NOTEBOOKS, NOTEBOOKS[1:], strict=False):
        assert f"]({following.name})" in "".join(cells(path, "markdown")[-1]["source"])


def test_readme_names_all_in_order():
    section = (
        (ROOT / "README.md")
        .read_text(encoding="utf-8")
        .split("## Tutorials\n")[1]
        .split("\n## ")[0]
    )
    assert re.findall(r"\]\(nbs/([^)]+)\)", section) == [path.name for path in NOTEBOOKS]
