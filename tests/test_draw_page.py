"The draw page's server: what it answers and refuses, and that one request never blocks another."
import base64
import http.client
import io
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image, ImageDraw

from digitfast import Predictor, read_digits
from digitfast.draw import server as draw_module
from digitfast.files import PACKED
from digitfast.inference.onnx_export import export_onnx
from digitfast.synthetic.photos import synthetic_photo


def ask(page, path="/", body=None, **headers):
    "Status, headers and body of one answer."
    where = urlsplit(page)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=60)
    try:
        connection.request("GET" if body is None else "POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def read(page, body, path="/read", **headers):
    status, _, answer = ask(page, path, body, **headers)
    return status, json.loads(answer)


def as_png(image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def photo(digits) -> bytes:
    "A large photo, which takes its time."
    files = [digits / f"training/{digit}/1.png" for digit in (3, 0, 7)]
    row = np.stack([np.asarray(Image.open(file)) for file in files])
    return as_png(synthetic_photo(row, np.random.default_rng(1), (2400, 1800)).image)


def test_an_answer_is_that_of_read_digits(draw_page, sevens):
    status, answer = read(draw_page, sevens)
    expected = read_digits(sevens)
    assert status == 200 and answer["text"] == expected.text == "77"
    for mark, digit in zip(answer["marks"], expected.lines[0], strict=True):
        assert (mark["digit"], mark["answer"], tuple(mark["box"])) == ("7", "7", digit.box)
        assert base64.b64decode(mark["pixels"]) == digit.image.tobytes()
        assert mark["probabilities"] == pytest.approx(list(digit.probabilities.values()), abs=1e-5)
        assert mark["no_digit"] == pytest.approx(digit.no_digit, abs=1e-5)


def test_what_is_no_digit(draw_page):
    blank = Image.new("L", (200, 150), 255)
    assert read(draw_page, as_png(blank))[1] == {"text": "no digit", "marks": []}
    scrawl = Image.new("L", (200, 200), 255)
    points = np.random.default_rng(3).uniform(20, 180, (60, 2))
    ImageDraw.Draw(scrawl).line([tuple(point) for point in points], fill=0, width=5)
    answer = read(draw_page, as_png(scrawl))[1]
    assert all(mark["digit"] is None for mark in answer["marks"])
    assert answer["text"] in ("no digit", "unsure")


def test_ink_is_whichever_it_is_said_to_be(draw_page):
    light = Image.new("L", (160, 160), 40)
    ImageDraw.Draw(light).line([(50, 40), (110, 40), (70, 130)], fill=240, width=9, joint="curve")
    assert read(draw_page, as_png(light), "/read?ink=light")[1]["text"] == "7"
    assert read(draw_page, as_png(light), "/read?ink=dark")[1]["text"] != "7"
    status, answer = read(draw_page, as_png(light), "/read?ink=blue")
    assert status == 400 and "auto, dark, light" in answer["error"]


def test_the_page_and_its_files(draw_page):
    for path, kind in (("/", "text/html"), ("/draw.js", "text/javascript"),
                       ("/draw.css", "text/css"), ("/icon.svg", "image/svg+xml")):
        status, headers, body = ask(draw_page, path)
        assert status == 200
        assert headers["content-type"].startswith(kind)
        assert body
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "server" not in headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert b"http://" not in body.replace(b"http://www.w3.org/2000/svg", b"")
        assert b"https://" not in body
    facts = json.loads(ask(draw_page, "/network")[2])
    assert facts["vocab"] == list("0123456789") and facts["name"] == "reader"


@pytest.mark.parametrize("path", [
    "/draw.html", "/report.css", "/../setup.cfg", "/..%2f..%2fsetup.cfg", "/web/draw.js",
    "//etc/passwd", "/%2e%2e/errors.py", "/draw.js/../../errors.py", "/read/../../errors.py"])
def test_no_other_file_can_be_asked_for(draw_page, path):
    assert ask(draw_page, path)[0] == 404


def test_only_pictures_are_read_and_only_when_sent(draw_page):
    assert ask(draw_page, "/read")[0] == 405 and ask(draw_page, "/", b"x")[0] == 405
    svg, cut_off = b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\x89PNG\r\n\x1a\n" + bytes(50)
    for junk in (b"", b"hello", svg, cut_off, b"PK\3\4"):
        status, answer = read(draw_page, junk)
        assert status == 400 and "cannot be read as a picture" in answer["error"]


def test_too_many_pixels_are_refused(draw_page):
    bomb = as_png(Image.new("1", (20_000, 20_000)))
    assert len(bomb) < 1_000_000
    status, answer = read(draw_page, bomb)
    assert status == 400 and "pixels; allowed are" in answer["error"]


def test_too_many_bytes_are_refused(draw_page):
    much = bytes(draw_module.MAX_BYTES + 1)
    for body in (much, iter([much])):  # of a length that is told, and of one that is not
        status, answer = read(draw_page, body)
        assert status == 413 and "at most 20 MB" in answer["error"]


@pytest.mark.parametrize("host", [
    "evil.example", "evil.example:80", "127.0.0.1.evil.example", "192.168.0.1", ""])
def test_another_host_is_refused(draw_page, host, sevens):
    assert ask(draw_page, "/", Host=host)[0] == 400
    assert ask(draw_page, "/read", sevens, Host=host)[0] == 400


@pytest.mark.parametrize("origin", [
    "http://evil.example", "null", "http://127.0.0.1", "http://127.0.0.1:9", "https://{}"])
def test_another_sites_page_is_refused(draw_page, origin, sevens):
    origin = origin.format(urlsplit(draw_page).netloc)
    status, answer = read(draw_page, sevens, Origin=origin)
    assert status == 403 and origin in answer["error"]
    assert ask(draw_page, "/network", Origin=origin)[0] == 403


def test_its_own_names_are_taken(draw_page, sevens):
    where = urlsplit(draw_page)
    assert where.hostname == "127.0.0.1"
    assert read(draw_page, sevens, Origin=draw_page.rstrip("/"))[0] == 200
    local = f"localhost:{where.port}"
    assert read(draw_page, sevens, Host=local, Origin=f"http://{local}")[0] == 200


def test_fifty_at_once_get_their_answers(draw_page, sevens):
    with ThreadPoolExecutor(50) as clients:
        answers = list(clients.map(lambda _: read(draw_page, sevens), range(50)))
    assert [(status, answer["text"]) for status, answer in answers] == [(200, "77")] * 50


def test_reading_does_not_hold_up_the_page(draw_page, photo):
    with ThreadPoolExecutor(3) as clients:
        reading = [clients.submit(read, draw_page, photo) for _ in range(3)]
        for _ in range(20):
            assert ask(draw_page, "/network")[0] == 200
        assert not reading[-1].done()
        assert {answer.result()[1]["text"] for answer in reading} == {"307"}


def test_who_goes_away_in_the_middle_disturbs_nobody(draw_page, sevens):
    where = urlsplit(draw_page)
    for _ in range(3):
        with socket.create_connection((where.hostname, where.port)) as connection:
            connection.sendall(f"POST /read HTTP/1.1\r\nHost: {where.netloc}\r\n".encode()
                               + b"Content-Length: 9000\r\n\r\nab")
    # the server still answers, and the fixture checks that it printed no complaint
    assert read(draw_page, sevens)[1]["text"] == "77"


def test_a_port_that_cannot_be_used(run_cli, draw_page):
    for port, why in ((urlsplit(draw_page).port, "in use"), (70_000, "1 to 65535")):
        code, out, err = run_cli("draw", "--no-browser", "--port", port)
        assert code == 1 and f"port {port} cannot be used" in err and why in err and not out


def test_the_command_opens_the_page_of_the_network_that_was_named(run_cli, monkeypatch, tmp_path):
    opened, served = [], []
    serves, done = threading.Event(), threading.Event()

    def open_browser(address):  # as some do: back when the page is closed
        assert serves.wait(20)
        opened.append(address)
        done.set()
    monkeypatch.setattr("webbrowser.open", open_browser)
    network = tmp_path / "n.safetensors"
    network.write_bytes((PACKED / "digitnet.safetensors").read_bytes())

    class Server:
        def __init__(self, config): served.append(config.app)

        def run(self, sockets):
            serves.set()
            assert done.wait(20)
            raise KeyboardInterrupt
    monkeypatch.setattr(draw_module.uvicorn, "Server", Server)
    code, out, err = run_cli("draw", network)
    assert (code, err, len(served)) == (0, "", 1)
    assert opened[0].startswith("http://127.0.0.1:") and opened[0] in out
    assert run_cli("draw", "absent")[0] == 1 and len(served) == 1
    assert run_cli("draw", "--no-browser")[0] == 0 and len(opened) == 1


ANSWERS = """
import asyncio, io, json, sys
from PIL import Image
from digitfast import open_predictor
from digitfast.draw.server import draw_app

app = draw_app(open_predictor(sys.argv[1]))
file = io.BytesIO()
Image.new("L", (100, 100), 255).save(file, "PNG")

async def ask(method, path, body):
    async def receive(): return {"type": "http.request", "body": body}
    async def send(message): answers.append(message)
    answers = []
    await app({"type": "http", "method": method, "path": path, "headers": [(b"host", b"127.0.0.1")],
               "query_string": b"", "scheme": "http", "server": ("127.0.0.1", 80)}, receive, send)
    return answers[0]["status"], json.loads(answers[1]["body"])

print(asyncio.run(ask("GET", "/network", b"")), asyncio.run(ask("POST", "/read", file.getvalue())),
      "torch" in sys.modules)
"""


def test_an_onnx_file_answers_without_torch(tmp_path):
    packed = Predictor.packed()
    file = export_onnx(packed, tmp_path / "x.onnx", np.zeros((1, 28, 28), np.uint8))
    done = subprocess.run([sys.executable, "-c", ANSWERS, str(file)],
                          capture_output=True, text=True, timeout=120)
    assert "(200, {'vocab': ['0'," in done.stdout, done.stderr
    assert done.stdout.endswith("(200, {'text': 'no digit', 'marks': []}) False\n")


def test_ctrl_c_while_a_picture_is_read(tmp_path):
    slow = "; ".join([
        "import sys, time", "from digitfast.draw import server",
        "from digitfast.cli.app import main", "server.read_digits = lambda *_: time.sleep(4)",
        "main()"])
    command = [sys.executable, "-c", slow, "draw", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as server:
        page = server.stdout.readline().split()[2]
        with ThreadPoolExecutor(1) as asking:
            answer = asking.submit(read, page, b"a picture")
            time.sleep(1)
            server.send_signal(signal.SIGINT)
            assert answer.result() == (503, {"error": "digitfast draw has ended"})
        assert server.wait(30) == 0 and "Traceback" not in server.stderr.read()


def test_facts_of_another_network():
    network = Predictor.packed()
    other = Predictor(network.network, network.vocab, arch="digitnet")
    assert draw_module._facts(other, None) | {"max_bytes": 0} == {
        "vocab": network.vocab, "name": "digitnet", "max_bytes": 0, "keep": None}
