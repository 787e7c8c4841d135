"""`digitfast lr-find`."""
import typer
from PIL import Image

from digitfast.cli.app import app


def test_suggestions_and_a_plot(run_cli, digits, tmp_path):
    code, out, err = run_cli("lr-find", "--arch", "simple", "--source", digits, "--bs", 32,
                             "--plot", "curve.png")
    assert (code, err) == (0, "")
    names = [line.split()[0] for line in out.splitlines()]
    assert names == ["valley", "slide", "steep", "minimum", "plot"]
    assert Image.open(tmp_path / "curve.png").size[0] > 400
    assert not (digits / "models").exists()  # nothing is left in the folder of digits


def test_options_are_described_as_those_of_fit():
    commands = typer.main.get_command(app).commands
    options = {option.name: option.help for option in commands["fit"].params}
    shared = [option for option in commands["lr-find"].params
              if option.name in options and option.name != "help"]
    assert len(shared) == 7
    for option in shared:
        assert option.help == options[option.name], option.name
