"""`digitfast runs`."""
import re


def test_a_run_has_a_line(run_cli, fitted):
    accuracy = re.search(r"accuracy (\S+%)", fitted).group(1)
    code, out, err = run_cli("runs")
    assert code == 0
    assert out.splitlines()[1].split()[:2] == ["simple", accuracy]


def test_no_runs(run_cli):
    assert run_cli("runs") == (0, "no runs in runs/ yet; digitfast fit makes one\n", "")
