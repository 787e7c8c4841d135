"""`digitfast predict`."""
import json
import re
import subprocess
import sys

from conftest import is_one_line

from digitfast import train_run


def test_files_and_folders(run_cli, fitted, digits):
    code, out, err = run_cli("predict", "simple", digits / "testing/4/30.png",
                             digits / "testing/1")
    assert code == 0
    assert len(out.splitlines()) == 13
    assert re.search(r"30.png  4  \d+\.\d\d%", out)


def test_json(run_cli, fitted, digits):
    out = run_cli("predict", "runs/simple", "--json", digits / "testing/4/30.png")[1]
    answer, = json.loads(out)
    assert answer["digit"] == "4"
    assert answer["probability"] == max(answer["probabilities"].values())


def test_one_bad_picture_does_not_stop_the_others(run_cli, fitted, digits, tmp_path):
    (tmp_path / "no image.png").write_text("no image")
    code, out, err = run_cli("predict", "simple", "no image.png", digits / "testing/4/30.png")
    assert code == 1
    assert is_one_line(err)
    assert "no image.png" in err
    assert "30.png  4" in out


def test_only_what_is_used_is_imported(digits, tmp_path):
    "None of the slow packages that only training or other networks need."
    train_run(str(digits), "digitnet", bs=32, runs=str(tmp_path))
    slow = {"torchvision", "timm", "torch._dynamo", "digitfast.runs.run"}
    code = ("import sys; from digitfast.cli.app import main\ntry: main()\nexcept SystemExit: "
            f"print(*({slow!r} & set(sys.modules)))")
    picture = str(digits / "testing/4/30.png")
    done = subprocess.run(
        [sys.executable, "-c", code, "predict", str(tmp_path / "digitnet"), picture],
        capture_output=True, text=True)
    answer, imported = done.stdout.splitlines()
    assert answer.startswith(picture)
    assert imported == ""
    assert not done.stderr
