"""The house: which module may import which, how long a module may be, and whose names are free."""
import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import digitfast

PACKAGE = Path(digitfast.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
WINGS = sorted(file.parent for file in PACKAGE.glob("*/__init__.py"))


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_module_is_one_thing(file):
    tree = ast.parse(file.read_text())
    assert len(file.read_text().splitlines()) <= 320
    long = {node.name for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.body[0].lineno > 50}
    assert not long
    assert not [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"
    ]


def test_public_names_are_there_and_documented():
    for name in digitfast.__all__:
        assert getattr(digitfast, name) is not None
        assert name == "__version__" or getattr(digitfast, name).__doc__


def test_no_public_name_is_one_of_fastais():
    import fastai.vision.all

    assert not set(digitfast.__all__) & set(
        fastai.vision.all.__all__
        if hasattr(fastai.vision.all, "__all__")
        else dir(fastai.vision.all)
    ) - {"__version__"}


def test_unknown_attribute():
    with pytest.raises(AttributeError, match="no_such_thing"):
        digitfast.no_such_thing  # noqa: B018


def test_help_and_import_need_no_torch():
    code = (
        "import sys; from typer.testing import CliRunner; from digitfast.cli.app import app; "
        "import digitfast.runs.settings; r = CliRunner().invoke(app, ['fit', '--help']); "
        "assert r.exit_code == 0; "
        "print([m for m in ('torch', 'fastai', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_package_that_is_imported_is_required():
    from setuptools.config.setupcfg import read_configuration
    options = read_configuration(PACKAGE.parent / "setup.cfg")["options"]
    required = {re.match(r"[\w-]+", line).group().lower() for line in options["install_requires"]}
    extras = [
        line
        for extra in ("timm", "onnx", "distributed", "pdf", "heic")
        for line in options["extras_require"][extra]
    ]
    optional = {re.match(r"[\w-]+", line).group() for line in extras}
    optional -= {"onnxscript"}  # torch's exporter imports it
    imported = set()
    for file in MODULES:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else (
                [node.module] if isinstance(node, ast.ImportFrom) else [])
            imported |= {name.split(".")[0] for name in names}
    others = imported - set(sys.stdlib_module_names) - {"digitfast"}
    packages = {"PIL": "pillow", "sklearn": "scikit-learn", "pillow_heif": "pillow-heif"}
    assert {packages.get(name, name) for name in others} == required | optional


@pytest.mark.parametrize("wing", WINGS, ids=lambda wing: wing.name)
def test_a_wing_is_described_by_its_docstring_alone(wing):
    body = ast.parse((wing / "__init__.py").read_text()).body
    assert len(body) == 1 and isinstance(body[0], ast.Expr) and body[0].value.value.endswith(".")


def test_a_wing_imports_only_wings_below_it():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo"],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
