"""Small digits of the tests' own: scikit-learn's real ones, in MNIST's form."""
import io
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

TRAIN, TEST = 30, 12  # images a digit
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.fixture(scope="session", autouse=True)
def fastai_home(tmp_path_factory):
    "fastai's data folder, away from the user's own."
    home = tmp_path_factory.mktemp("fastai")
    os.environ["FASTAI_HOME"] = str(home)
    return home


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Path:
    "A folder of 300 + 120 digits, 28×28, light on dark, in training/ and testing/. Read only."
    from sklearn.datasets import load_digits
    images, labels = load_digits(return_X_y=True)
    root = tmp_path_factory.mktemp("digits")
    for digit in range(10):
        of_digit = images[labels == digit][:TRAIN + TEST].reshape(-1, 8, 8)
        for i, pixels in enumerate(of_digit):
            folder = root / ("training" if i < TRAIN else "testing") / str(digit)
            folder.mkdir(parents=True, exist_ok=True)
            small = Image.fromarray((pixels * 255 / 16).round().astype(np.uint8))
            canvas = Image.new("L", (28, 28))
            canvas.paste(small.resize((20, 20), Image.Resampling.BICUBIC), (4, 4))
            canvas.save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="session")
def many_digits(digits, tmp_path_factory) -> Path:
    "Eight times the same digits, for epochs long enough to learn something. Read only."
    root = tmp_path_factory.mktemp("many")
    for file in digits.glob("*/*/*.png"):
        folder = root / file.parent.relative_to(digits)
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(8):
            (folder / f"{file.stem}-{i}.png").hardlink_to(file)
    return root


@pytest.fixture
def copy_of_digits(digits, tmp_path) -> Path:
    "The same digits, to be changed."
    return Path(shutil.copytree(digits, tmp_path / "digits"))


@pytest.fixture(scope="session")
def mnist(fastai_home) -> Path:
    "All of MNIST, unpacked from the archive in the package."
    from digitfast import digits_path
    return digits_path()


@pytest.fixture(scope="session")
def trained(digits):
    "A simple net that has learnt the small digits. Not to be changed."
    from fastai.torch_core import set_seed

    from digitfast import digit_dls, simple_learner, train_learner
    set_seed(0)
    return train_learner(simple_learner(digit_dls(digits, bs=32, num_workers=0)), 8, 0.01)


@pytest.fixture
def run_cli(capsys, monkeypatch, tmp_path):
    "Runs the command line in an empty folder; gives exit code, stdout and stderr."
    from digitfast.cli.app import main
    from digitfast.training import cpu_threads
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        cpu_threads, "_look", None
    )  # the other tests' trainings take all threads again

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["digitfast", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = capsys.readouterr()
        return exit_.value.code, out, err
    return run


@pytest.fixture(scope="session")
def sevens() -> bytes:
    "A PNG of two 7s as one might draw them."
    paper = Image.new("L", (240, 160), 255)
    pen = ImageDraw.Draw(paper)
    for x in (30, 140):
        pen.line([(x, 40), (x + 60, 40), (x + 20, 130)], fill=0, width=9, joint="curve")
    file = io.BytesIO()
    paper.save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def draw_page(tmp_path_factory):
    "The address of a draw page, whose server must end well and without a word on stderr."
    errors = tmp_path_factory.mktemp("draw") / "stderr"
    with (
        open(errors, "w") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "digitfast", "draw", "--no-browser"],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        ) as server,
    ):
        try:
            yield server.stdout.readline().split()[2]
        finally:
            server.send_signal(signal.SIGINT)
            code = server.wait(30)
    assert (code, errors.read_text()) == (0, "")


@pytest.fixture
def fitted(run_cli, digits) -> str:
    "Train the simple net as runs/simple with `digitfast fit`, and return what it printed."
    code, out, err = run_cli("fit", "--arch", "simple", "--source", digits, "--bs", 32,
                             "--epochs", 15)
    assert code == 0, err
    return out


def is_one_line(err: str) -> bool:
    "Return whether `err` is one error message of the command line."
    return err.startswith("digitfast: ") and err.count("\n") == 1 and "Traceback" not in err
