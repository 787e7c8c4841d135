"""`digitfast data`."""
import re


def test_a_folder(run_cli, digits):
    code, out, err = run_cli("data", digits)
    assert code == 0
    assert "training      300 images   0: 30" in out
    assert re.search(r"sha256     [0-9a-f]{64}  \(of names and pixels\)\n", out)


def test_mnist(run_cli, mnist):
    code, out, err = run_cli("data")
    assert code == 0
    assert str(mnist) in out
    assert "60,000 images   0: 5,923" in out
    assert "CC BY-SA 3.0" in out
