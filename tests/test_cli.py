"""What all commands share: help, errors and exit codes."""
import pytest
from conftest import is_one_line

COMMANDS = ["fit", "lr-find", "evaluate", "report", "predict", "read", "draw", "export", "data",
            "runs", "bench"]


@pytest.mark.parametrize("args, code, message", [
    (["fit", "--arch", "resnet81"], 1, "Did you mean resnet18"),
    (["fit", "--opt", "adma"], 1, "Did you mean adam"),
    (["fit", "--run", "article"], 1, "article-pytorch"),
    (["fit", "--epochs", "0"], 1, "epochs must be"),
    (["fit", "--source", "nowhere"], 1, "Allowed: mnist, "),
    (["fit", "--settings", "absent.ini"], 1, "absent.ini"),
    (["fit", "--epochs", "two"], 2, "'--epochs': Input should be a valid integer"),
    (["fit", "--epoch", "2"], 2, "No such option: --epoch"),
    (["fti"], 2, "fti"),
    (["predict"], 2, "Missing argument"),
    (["lr-find", "--plot", "x.txt"], 1, "not 'x.txt'"),
    (["lr-find", "--plot", "absent/x.png"], 1, "not 'absent/x.png'"),
    (["data", "http://exa mple/x.tgz"], 1, "could not be fetched"),
    (["data", "http://[x/y.tgz"], 1, "is not a URL"),
    (["predict", "simple", "x.png"], 1, "there is no run 'simple'"),
    (["evaluate", "simple"], 1, "there is no run"),
    (["export", "simple"], 1, "there is no run"),
])
def test_an_error_is_one_line(run_cli, args, code, message):
    got, out, err = run_cli(*args)
    assert got == code
    assert not out
    assert is_one_line(err)
    assert message in err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(run_cli, command):
    code, out, err = run_cli(command, "--help")
    assert code == 0
    assert not err
    assert "Usage: digitfast " + command in out


def test_help_lists_all_commands(run_cli):
    code, out, err = run_cli("--help")
    assert code == 0
    assert all(command in out for command in COMMANDS)


def test_no_command_prints_the_help(run_cli):
    assert "Usage" in run_cli()[1]


def test_version(run_cli):
    assert run_cli("--version")[1].startswith("digitfast ")
