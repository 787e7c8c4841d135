"""`digitfast report`."""
from conftest import is_one_line


def test_a_page_is_written(run_cli, fitted, tmp_path):
    code, out, err = run_cli("report", "simple", "--to", "mine.html")
    path, line = out.splitlines()
    assert code == 0
    assert path == "mine.html"
    assert line in fitted
    assert line.startswith("accuracy ")
    assert "simple" in (tmp_path / "mine.html").read_text()


def test_only_a_html_is_written(run_cli, fitted):
    code, out, err = run_cli("report", "simple", "--to", "mine.txt")
    assert code == 1
    assert is_one_line(err)
    assert "a .html in a folder" in err


def test_a_mistyped_run(run_cli, fitted):
    code, out, err = run_cli("report", "smiple")
    assert code == 1
    assert is_one_line(err)
    assert "simple" in err
