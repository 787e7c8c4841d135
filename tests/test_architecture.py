"""The house: which module may import which, how long a module may be, and whose names are free."""
import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import digitfast

PACKAGE = Path(digitfast.__file__).parent
RANKS = {  # as in the README's "How it is built"; a module imports only modules of a lower rank
    "__init__": 0, "errors": 0, "files": 0, "registry": 1, "charts": 1, "processes": 1,
    "accuracy": 1, "cuda_graphs": 1, "cpu_threads": 1,
    "sources": 2, "pictures": 2, "models": 2, "losses": 2, "optim": 2, "sealed": 2, "settings": 2, "options": 2,
    "arithmetic": 2, "augment": 2, "circumstances": 2, "headers": 2, "digit_form": 2, "ink_net": 2,
    "segments": 2, "letters": 2, "training_state": 2, "distributed": 2, "console": 2,
    "lean": 3, "folders": 3, "callbacks": 3, "images": 3,
    "calibration": 3, "networks": 3, "onnx_files": 3, "non_digits": 3, "photos": 3,
    "markup": 3, "checkpoints": 4, "resident": 4, "tensors": 4, "ink": 4, "pages": 4, "predictor": 4,
    "loaders": 5, "learners": 5, "training": 5, "evaluation": 5, "saving": 5, "reading": 5, "onnx_export": 5,
    "lr_find": 6, "run_folders": 6, "figures": 6, "label_errors": 6, "runs": 7, "answers": 7, "report": 7,
    "report_page": 8, "draw_page": 8, "test_sets": 8, "peers": 8, "bench": 8,
    "training_commands": 9, "network_commands": 9, "cli": 10, "__main__": 11,
}
MODULES = sorted(PACKAGE.glob("*.py"))


def imports(file: Path) -> set[str]:
    "The modules of digitfast that a module imports, anywhere in it."
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("digitfast."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {name.name.split(".")[1] for name in node.names if name.name.startswith("digitfast.")}
    return found


@pytest.mark.parametrize("file", MODULES, ids=lambda file: file.stem)
def test_imports_point_downward(file):
    assert not {name for name in imports(file) if RANKS[name] >= RANKS[file.stem]}


@pytest.mark.parametrize("file", MODULES, ids=lambda file: file.stem)
def test_module_is_one_thing(file):
    tree = ast.parse(file.read_text())
    assert len(file.read_text().splitlines()) <= 320
    long = {node.name for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.body[0].lineno > 50}
    assert not long
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"]


def test_public_names_are_there_and_documented():
    for name in digitfast.__all__:
        assert getattr(digitfast, name) is not None
        assert name == "__version__" or getattr(digitfast, name).__doc__


def test_no_public_name_is_one_of_fastais():
    import fastai.vision.all
    assert not set(digitfast.__all__) & set(fastai.vision.all.__all__ if hasattr(fastai.vision.all, "__all__")
                                            else dir(fastai.vision.all)) - {"__version__"}


def test_unknown_attribute():
    with pytest.raises(AttributeError, match="no_such_thing"):
        digitfast.no_such_thing  # noqa: B018


def test_help_and_import_need_no_torch():
    code = ("import sys; from typer.testing import CliRunner; from digitfast.cli import app; "
            "import digitfast.settings; r = CliRunner().invoke(app, ['fit', '--help']); assert r.exit_code == 0; "
            "print([m for m in ('torch', 'fastai', 'numpy') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_package_that_is_imported_is_required():
    from setuptools.config.setupcfg import read_configuration
    options = read_configuration(PACKAGE.parent / "setup.cfg")["options"]
    required = {re.match(r"[\w-]+", line).group().lower() for line in options["install_requires"]}
    extras = [line for extra in ("timm", "onnx", "distributed") for line in options["extras_require"][extra]]
    optional = {re.match(r"[\w-]+", line).group() for line in extras} - {"onnxscript"}  # torch's exporter imports it
    imported = set()
    for file in MODULES:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else (
                [node.module] if isinstance(node, ast.ImportFrom) else [])
            imported |= {name.split(".")[0] for name in names}
    others = imported - set(sys.stdlib_module_names) - {"digitfast"}
    packages = {"PIL": "pillow", "sklearn": "scikit-learn"}
    assert {packages.get(name, name) for name in others} == required | optional
