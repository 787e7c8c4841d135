import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest
import typer
from fastai.learner import load_learner
from PIL import Image

from digitfast import train_run
from digitfast.cli import app as cli
from digitfast.registry import ARCHITECTURES, OPTIMIZERS
from digitfast.training.recipe import Recipe

COMMANDS = ["fit", "lr-find", "evaluate", "report", "predict", "read", "draw", "export", "data", "runs", "bench"]
DIGITFAST = [sys.executable, "-m", "digitfast"]


@pytest.fixture
def fitted(run_cli, digits):
    code, out, err = run_cli("fit", "--arch", "simple", "--source", digits, "--bs", 32, "--epochs", 15)
    assert code == 0, err
    return out


def one_line(err):
    return err.startswith("digitfast: ") and err.count("\n") == 1 and "Traceback" not in err


def test_fit_evaluate_predict_export(run_cli, fitted, digits, tmp_path):
    assert re.search(r"accuracy \d\d\.\d\d% \(95 % interval .*\) on 120 test images", fitted)
    assert "saved in runs/simple" in fitted
    code, out, err = run_cli("evaluate", "simple")
    accuracy = re.search(r"accuracy (\S+%)", fitted).group(1)
    assert code == 0 and f"accuracy {accuracy}" in out and "120 images" in out and "actual \\ predicted" in out
    code, out, err = run_cli("predict", "simple", digits / "testing/4/30.png", digits / "testing/1")
    assert code == 0 and len(out.splitlines()) == 13 and re.search(r"30.png  4  \d+\.\d\d%", out)
    code, out, err = run_cli("predict", "runs/simple", "--json", digits / "testing/4/30.png")
    answer, = json.loads(out)
    assert answer["digit"] == "4" and answer["probability"] == max(answer["probabilities"].values())
    code, out, err = run_cli("export", "simple", "--to", "mine.pkl")
    assert code == 0 and out == "mine.pkl\n"
    assert load_learner(tmp_path / "mine.pkl").predict(digits / "testing/4/30.png")[0] == "4"
    trained_on = run_cli("evaluate", "runs/simple/learner.pkl", "--trust")[1]
    assert f"accuracy {accuracy}" in trained_on and str(digits / "testing") in trained_on
    assert run_cli("predict", "mine.pkl", "--trust", digits / "testing/4/30.png")[0] == 0
    evaluated = run_cli("evaluate", "mine.pkl", "--trust", "--source", digits / "testing")[1]
    assert evaluated.startswith(f"accuracy {accuracy}")
    code, out, err = run_cli("export", "simple", "--to", "mine.pkl")
    assert code == 1 and "mine.pkl exists" in err
    for command, *more in (("predict", "x.png"), ("read", "x.png"), ("evaluate",)):
        code, out, err = run_cli(command, "mine.pkl", *more)
        assert code == 1 and not out and one_line(err) and "mine.pkl was not opened" in err and "--trust" in err
    assert run_cli("export", "simple")[:2] == (0, "simple.safetensors\n")
    for file in ("simple.safetensors", "simple.onnx"):
        if not (tmp_path / file).exists():
            assert run_cli("export", "simple", "--to", file) == (0, f"{file}\n", "")
        assert f"accuracy {accuracy}" in run_cli("evaluate", file)[1]
        again, = json.loads(run_cli("predict", file, "--json", digits / "testing/4/30.png")[1])
        assert again["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-4)
    code, out, err = run_cli("export", "simple", "--to", "small.onnx", "--int8")
    assert (code, err) == (0, "") and re.fullmatch(rf"small.onnx\nfloat32  accuracy {accuracy} on 120 test images\n"
                                                   r"int8     accuracy \d+\.\d\d% on 120 test images\n", out)
    code, out, err = run_cli("runs")
    assert code == 0 and out.splitlines()[1].split()[:2] == ["simple", accuracy]


def test_report(run_cli, fitted, tmp_path):
    code, out, err = run_cli("report", "simple", "--to", "mine.html")
    path, line = out.splitlines()
    assert code == 0 and path == "mine.html" and line in fitted and line.startswith("accuracy ")
    assert "simple" in (tmp_path / "mine.html").read_text()
    code, out, err = run_cli("report", "simple", "--to", "mine.txt")
    assert code == 1 and one_line(err) and "a .html in a folder" in err
    code, out, err = run_cli("report", "smiple")
    assert code == 1 and one_line(err) and "simple" in err


def test_flag_beats_section_beats_default(run_cli, digits, tmp_path):
    (tmp_path / "settings.ini").write_text(f"[mine]\nsource = {digits}\narch = simple\nbs = 32\nepochs = 2\n")
    assert run_cli("fit", "--run", "mine", "--epochs", 1, "--seed", 7)[0] == 0
    settings = json.loads((tmp_path / "runs/mine/summary.json").read_text())["settings"]
    assert (settings["bs"], settings["epochs"], settings["seed"], settings["lr"]) == (32, 1, 7, 0.015)
    code, out, err = run_cli("fit", "--settings", "runs/mine/settings.ini")
    assert code == 0 and "saved in runs/mine-2" in out


def test_lr_find(run_cli, digits, tmp_path):
    code, out, err = run_cli("lr-find", "--arch", "simple", "--source", digits, "--bs", 32, "--plot", "curve.png")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == ["valley", "slide", "steep", "minimum", "plot"]
    assert Image.open(tmp_path / "curve.png").size[0] > 400
    assert not (digits / "models").exists()  # nothing is left beside the digits


def test_data(run_cli, digits, mnist):
    code, out, err = run_cli("data", digits)
    assert code == 0 and "training      300 images   0: 30" in out
    assert re.search(r"sha256     [0-9a-f]{64}  \(of names and pixels\)\n", out)
    code, out, err = run_cli("data")
    assert code == 0 and str(mnist) in out and "60,000 images   0: 5,923" in out and "CC BY-SA 3.0" in out


def test_predict_answers_what_it_can(run_cli, fitted, digits, tmp_path):
    (tmp_path / "no image.png").write_text("no image")
    code, out, err = run_cli("predict", "simple", "no image.png", digits / "testing/4/30.png")
    assert code == 1 and one_line(err) and "no image.png" in err and "30.png  4" in out


@pytest.mark.parametrize("args, code, message", [
    (["fit", "--arch", "resnet81"], 1, "Did you mean resnet18"),
    (["fit", "--opt", "adma"], 1, "Did you mean adam"),
    (["fit", "--run", "article"], 1, "article-pytorch"),
    (["fit", "--epochs", "0"], 1, "epochs must be"),
    (["fit", "--source", "nowhere"], 1, "Allowed: 'mnist'"),
    (["fit", "--settings", "absent.ini"], 1, "absent.ini"),
    (["fit", "--epochs", "two"], 2, "'--epochs': Input should be a valid integer"),
    (["fit", "--epoch", "2"], 2, "No such option: --epoch"),
    (["fti"], 2, "fti"),
    (["predict"], 2, "Missing argument"),
    (["lr-find", "--plot", "x.txt"], 1, "not 'x.txt'"),
    (["lr-find", "--plot", "absent/x.png"], 1, "not 'absent/x.png'"),
    (["data", "http://exa mple/x.tgz"], 1, "could not be fetched"),
    (["data", "http://[x/y.tgz"], 1, "is no URL"),
    (["predict", "simple", "x.png"], 1, "there is no run 'simple'"),
    (["evaluate", "simple"], 1, "there is no run"),
    (["export", "simple"], 1, "there is no run"),
])
def test_mistakes_are_one_line(run_cli, args, code, message):
    got, out, err = run_cli(*args)
    assert (got, out) == (code, "") and one_line(err) and message in err


@pytest.mark.parametrize("command", COMMANDS)
def test_help(run_cli, command):
    code, out, err = run_cli(command, "--help")
    assert code == 0 and not err and "Usage: digitfast " + command in out


def test_help_of_the_whole(run_cli):
    code, out, err = run_cli("--help")
    assert code == 0 and all(command in out for command in COMMANDS)
    assert run_cli("--version")[1].startswith("digitfast ")
    assert "Usage" in run_cli()[1]


def test_fit_offers_all_settings_with_their_defaults(run_cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    out = run_cli("fit", "--help")[1]
    assert all(name in out for name in (*ARCHITECTURES, *OPTIMIZERS))
    options = {p.name: p for p in typer.main.get_command(cli.app).commands["fit"].params}
    parameters = {setting.name: setting for setting in fields(Recipe)}
    assert options.keys() - {"run", "settings", "resume", "help"} == parameters.keys()
    for name, parameter in parameters.items():
        if parameter.default is not None:
            assert options[name].help.endswith(f" Default: {parameter.default}."), name
    for option in typer.main.get_command(cli.app).commands["lr-find"].params:
        if option.name in parameters:
            assert option.help == options[option.name].help


def test_piped_output_has_no_control_characters(digits, tmp_path):
    args = [*DIGITFAST, "fit", "--arch", "simple", "--source", str(digits), "--bs", "32", "--epochs", "2"]
    done = subprocess.run(args, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert one_line(done.stderr) and "only 18 steps" in done.stderr and "try epochs=17" in done.stderr
    assert len(done.stdout.splitlines()) == 1 + 2 + 3  # header, epochs, result
    assert all(c.isprintable() or c == "\n" for c in done.stdout)


def test_ctrl_c_on_a_terminal(digits, tmp_path):
    "A real terminal: bars while it trains; Ctrl-C ends it with one line, exit code 130 and a run to resume."
    primary, secondary = pty.openpty()
    process = subprocess.Popen(
        [*DIGITFAST, "fit", "--arch", "simple", "--source", str(digits), "--bs", "8", "--epochs", "9999"],
        cwd=tmp_path, stdin=secondary, stdout=secondary, stderr=subprocess.PIPE, start_new_session=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # which jobs in the background ignore
    os.close(secondary)
    shown, end = b"", time.monotonic() + 60
    while b"Epoch 2 training" not in shown and time.monotonic() < end:
        shown += os.read(primary, 4096)
    os.killpg(process.pid, signal.SIGINT)  # the terminal sends it to every process of the group
    err = process.communicate(timeout=60)[1].decode()
    os.close(primary)
    assert b"Epoch 2 training" in shown and b"\x1b[" in shown
    assert process.returncode == 130
    assert err == "digitfast: interrupted; resume with: digitfast fit --resume runs/simple\n"
    assert len(list(Path(tmp_path, "runs/simple/checkpoints").glob("[0-9]*.safetensors"))) == 2


def test_resume(run_cli, digits, tmp_path, monkeypatch):
    from digitfast import History
    fit = ["fit", "--arch", "simple", "--source", digits, "--bs", 32, "--epochs", 20]
    assert run_cli(*fit, "--name", "whole")[0] == 0
    monkeypatch.setattr(History, "after_epoch", interrupt_in_the_third(History.after_epoch))
    code, out, err = run_cli(*fit, "--name", "mine")
    assert (code, err) == (130, "digitfast: interrupted; resume with: digitfast fit --resume runs/mine\n")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    for wrong, message in ((["--lr", 1, "--run", "best"], "leave out --lr, --run"), (["--resume", "yours"], "mine")):
        code, out, err = run_cli("fit", "--resume", "mine", *wrong)
        assert code == 1 and not out and one_line(err) and message in err
    assert "mine   not finished" in run_cli("runs")[1]
    for command in (["export", "mine"], ["evaluate", "mine"]):
        code, out, err = run_cli(*command)
        assert code == 1 and "resume with: digitfast fit --resume runs/mine" in err
    code, out, err = run_cli("fit", "--resume", "mine")
    assert code == 0 and not err and out.startswith("going on at epoch ") and "saved in runs/mine" in out
    lines = [[line.rsplit(",", 1)[0] for line in (tmp_path / f"runs/{name}/history.csv").read_text().splitlines()]
             for name in ("whole", "mine")]
    assert lines[0] == lines[1] and len(lines[0]) == 21
    code, out, err = run_cli("fit", "--resume", "mine")
    assert code == 1 and "runs/mine is finished" in err


def interrupt_in_the_third(after_epoch):
    def then_interrupt(self):
        if self.epoch == 2:
            raise KeyboardInterrupt
        after_epoch(self)
    return then_interrupt


def test_bench_prints_a_table_and_writes_json(run_cli, monkeypatch, tmp_path):
    from digitfast.bench import comparisons as bench
    figures = {"setup": 1.0, "training": 2.0, "accuracy": 0.5, "peak_bytes": 1, "process": 3.0}
    monkeypatch.setattr(bench, "_measure", lambda *args: figures)
    monkeypatch.setattr(bench, "digits_path", lambda: tmp_path / "mnist_png")
    (tmp_path / "mnist_png/training/0").mkdir(parents=True)
    (tmp_path / "mnist_png/testing/0").mkdir(parents=True)
    code, out, err = run_cli("bench", "--quick", "--json", "results.json")
    assert code == 0 and out.startswith("| ours / theirs |") and "QUICK" in out and "train-mnist-fast, seed 1" in err
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["comparisons"][0]["ours"] == [figures] and results["versions"]["torch"]
    for wrong in ("results.txt", "nowhere/results.json"):
        code, out, err = run_cli("bench", "--json", wrong)
        assert code == 1 and not out and "a .json in an existing folder" in err


def test_predict_imports_what_it_uses(digits, tmp_path):
    "Of the packages that take seconds to import, none that only training or other networks need."
    train_run(str(digits), "digitnet", bs=32, runs=str(tmp_path))
    code = ("import sys; from digitfast.cli.app import main\ntry: main()\nexcept SystemExit: "
            "print(*{'torchvision', 'timm', 'torch._dynamo', 'digitfast.runs.run'} & set(sys.modules))")
    done = subprocess.run([sys.executable, "-c", code, "predict", str(tmp_path / "digitnet"),
                           str(digits / "testing/4/30.png")], capture_output=True, text=True)
    answer, imported = done.stdout.splitlines()
    assert answer.startswith(str(digits / "testing/4/30.png")) and imported == "" and not done.stderr


def test_evaluate_counts_pictures_in_which_nothing_is_found(run_cli, tmp_path):
    for digit in "01":
        (tmp_path / "blank" / digit).mkdir(parents=True)
        for i in range(2):
            Image.new("L", (100, 100), 255).save(tmp_path / f"blank/{digit}/{i}.png")
    code, out, err = run_cli("evaluate", "--source", "blank")
    assert code == 0 and out.startswith("accuracy 0.00% (95 % interval")
    assert "right and sure 0.00%, wrong and sure 0.00%, refused (unsure, or no digit) 100.00%" in out
    assert out.splitlines()[4].split()[-1] == "none" and out.splitlines()[5].split() == ["0", *["0"] * 10, "2"]


def test_a_training_that_diverges_ends_with_an_exit_code(run_cli, digits, tmp_path):
    code, out, err = run_cli("fit", "--arch", "simple", "--source", digits, "--lr", 1e30, "--epochs", 2)
    assert code == 1 and one_line(err) and "diverged in epoch 0" in err and "smaller" in err
    assert "saved" not in out and not list(tmp_path.glob("runs/*"))
