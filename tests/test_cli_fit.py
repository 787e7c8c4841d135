"""`digitfast fit`."""
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
from conftest import is_one_line

from digitfast import History
from digitfast.cli.app import app
from digitfast.registry import ARCHITECTURES, OPTIMIZERS
from digitfast.training.recipe import Recipe

DIGITFAST = [sys.executable, "-m", "digitfast"]


def test_the_result_is_printed(fitted):
    assert re.search(r"accuracy \d\d\.\d\d% \(95 % interval .*\) on 120 test images", fitted)
    assert "saved in runs/simple" in fitted


def test_an_option_beats_a_named_run_which_beats_the_default(run_cli, digits, tmp_path):
    (tmp_path / "settings.ini").write_text(
        f"[mine]\nsource = {digits}\narch = simple\nbs = 32\nepochs = 2\n")
    assert run_cli("fit", "--run", "mine", "--epochs", 1, "--seed", 7)[0] == 0
    settings = json.loads((tmp_path / "runs/mine/summary.json").read_text())["settings"]
    used = [settings[name] for name in ("bs", "epochs", "seed", "lr")]
    assert used == [32, 1, 7, 0.015]
    code, out, err = run_cli("fit", "--settings", "runs/mine/settings.ini")
    assert code == 0
    assert "saved in runs/mine-2" in out


def test_help_shows_all_settings_with_their_defaults(run_cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    out = run_cli("fit", "--help")[1]
    assert all(name in out for name in (*ARCHITECTURES, *OPTIMIZERS))
    options = {p.name: p for p in typer.main.get_command(app).commands["fit"].params}
    parameters = {setting.name: setting for setting in fields(Recipe)}
    assert options.keys() - {"run", "settings", "resume", "help"} == parameters.keys()
    for name, parameter in parameters.items():
        if parameter.default is not None:
            assert options[name].help.endswith(f" Default: {parameter.default}."), name


def test_piped_output_has_no_control_characters(digits, tmp_path):
    args = [*DIGITFAST, "fit", "--arch", "simple", "--source", str(digits), "--bs", "32",
            "--epochs", "2"]
    done = subprocess.run(args, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert is_one_line(done.stderr)
    assert "only 18 steps" in done.stderr
    assert "try epochs=17" in done.stderr
    assert len(done.stdout.splitlines()) == 1 + 2 + 3  # header, epochs, result
    assert all(c.isprintable() or c == "\n" for c in done.stdout)


def test_ctrl_c_on_a_terminal(digits, tmp_path):
    "On a real terminal bars are shown; Ctrl-C ends with one line, exit code 130 and checkpoints."
    primary, secondary = pty.openpty()
    process = subprocess.Popen(
        [*DIGITFAST, "fit", "--arch", "simple", "--source", str(digits), "--bs", "8",
         "--epochs", "9999"],
        cwd=tmp_path, stdin=secondary, stdout=secondary, stderr=subprocess.PIPE,
        start_new_session=True, env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
        # jobs in the background ignore it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    os.close(secondary)
    shown = b""
    end = time.monotonic() + 60
    while b"Epoch 2 training" not in shown and time.monotonic() < end:
        shown += os.read(primary, 4096)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to every process of the group
    err = process.communicate(timeout=60)[1].decode()
    os.close(primary)
    assert b"Epoch 2 training" in shown
    assert b"\x1b[" in shown
    assert process.returncode == 130
    assert err == "digitfast: interrupted; resume with: digitfast fit --resume runs/simple\n"
    assert len(list(Path(tmp_path, "runs/simple/checkpoints").glob("[0-9]*.safetensors"))) == 2


@pytest.fixture
def interrupted(run_cli, digits, tmp_path, monkeypatch):
    "A run called whole, and the same called mine, interrupted in its third epoch."
    after_epoch = History.after_epoch

    def interrupt_in_the_third(self):
        if self.epoch == 2:
            raise KeyboardInterrupt
        after_epoch(self)
    fit = ["fit", "--arch", "simple", "--source", digits, "--bs", 32, "--epochs", 20]
    assert run_cli(*fit, "--name", "whole")[0] == 0
    with monkeypatch.context() as patched:
        patched.setattr(History, "after_epoch", interrupt_in_the_third)
        return run_cli(*fit, "--name", "mine")


def test_an_interrupted_run_says_how_to_resume(interrupted, run_cli):
    message = "digitfast: interrupted; resume with: digitfast fit --resume runs/mine\n"
    assert (interrupted[0], interrupted[2]) == (130, message)
    assert "mine   not finished" in run_cli("runs")[1]
    for command in (["export", "mine"], ["evaluate", "mine"]):
        code, out, err = run_cli(*command)
        assert code == 1
        assert "resume with: digitfast fit --resume runs/mine" in err


@pytest.mark.parametrize("args, message", [
    (["--lr", 1, "--run", "best"], "leave out --lr, --run"),
    (["--resume", "yours"], "mine"),
])
def test_resume_refuses_other_settings_and_names(interrupted, run_cli, args, message):
    code, out, err = run_cli("fit", "--resume", "mine", *args)
    assert code == 1
    assert not out
    assert is_one_line(err)
    assert message in err


def test_resume_ends_as_an_uninterrupted_run(interrupted, run_cli, tmp_path):
    code, out, err = run_cli("fit", "--resume", "mine")
    assert code == 0
    assert not err
    assert out.startswith("resuming at epoch ")
    assert "saved in runs/mine" in out
    without_time = [[line.rsplit(",", 1)[0] for line in
                     (tmp_path / f"runs/{name}/history.csv").read_text().splitlines()]
                    for name in ("whole", "mine")]
    assert without_time[0] == without_time[1]
    assert len(without_time[0]) == 21
    code, out, err = run_cli("fit", "--resume", "mine")
    assert code == 1
    assert "runs/mine is finished" in err


def test_a_training_that_diverges_ends_with_an_exit_code(run_cli, digits, tmp_path):
    code, out, err = run_cli("fit", "--arch", "simple", "--source", digits, "--lr", 1e30,
                             "--epochs", 2)
    assert code == 1
    assert is_one_line(err)
    assert "diverged in epoch 0" in err
    assert "smaller" in err
    assert "saved" not in out
    assert not list(tmp_path.glob("runs/*"))
