"""The site of docs/ and nbs/ builds without a warning, links right, and asks no other host."""
import re
import subprocess
import sys
import threading
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from conftest import CHROMIUM

pytest.importorskip("mkdocs_jupyter", reason="needs mkdocs: pip install '.[dev]'")
ROOT = Path(__file__).parent.parent
PAGES = ("index.html", "reading.html", "api.html", "nbs/00_quickstart.html",
         "benchmarks/index.html")


class Page(HTMLParser):
    "The links, loaded files and anchors of a page."

    def __init__(self, file: Path):
        super().__init__()
        self.links, self.loaded, self.anchors = [], [], set()
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors |= {attrs[name] for name in ("id", "name") if attrs.get(name)}
        if tag == "a" and attrs.get("href"):
            self.links.append(attrs["href"])
        elif tag == "link" and attrs.get("rel") != "canonical":
            self.loaded.append(attrs["href"])
        elif attrs.get("src"):
            self.loaded.append(attrs["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    "Return the folder of the built site; a warning fails the build."
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    files = sorted(file for file in site.rglob("*.html") if file.name != "404.html")
    return {file: Page(file) for file in files}


def test_every_page_and_notebook_is_there(site):
    sources = [*(ROOT / "docs").glob("*.md"), *(ROOT / "nbs").glob("*.ipynb")]
    paths = [file.relative_to(ROOT).with_suffix(".html").as_posix() for file in sources]
    assert [path for path in paths if not (site / path.removeprefix("docs/")).is_file()] == []


def test_nothing_is_loaded_from_another_host(pages):
    loaded = {address for page in pages.values() for address in page.loaded}
    assert {address for address in loaded if urlsplit(address).netloc} == set()


def test_no_script_names_another_host(pages):
    scripts = {script for file in pages for script in re.findall(
        r"<script\b[^>]*>(.*?)</script>", file.read_text(encoding="utf-8"), re.S)}
    assert {script for script in scripts if re.search(r"https?://|\bcdn", script)} == set()


def test_links_resolve(pages):
    broken = []
    for file, page in pages.items():
        for link in [*page.links, *page.loaded]:
            address = urlsplit(link)
            if address.scheme or address.netloc:
                continue
            target = (file.parent / unquote(address.path)).resolve() if address.path else file
            target = target / "index.html" if target.is_dir() else target
            anchor = unquote(address.fragment)
            known = pages[target].anchors if target in pages else set()
            if not target.is_file() or (anchor and target in pages and anchor not in known):
                broken.append(f"{file.name}: {link}")
    assert broken == []


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args): pass


@pytest.fixture(scope="module")
def address(site):
    "Serve the site on this computer, and yield its address."
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM:
        pytest.skip("needs Chromium on the PATH: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install '.[dev]'")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=[
            "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--disable-background-networking"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    "Yield a new page; after the test it must have asked no other host and logged nothing."
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    page = context.new_page()
    asked: list[str] = []  # addresses
    console: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: console.append(message.text))
    page.on("pageerror", lambda error: console.append(str(error)))
    page.on("requestfailed", lambda request: console.append(f"failed: {request.url}"))
    page.set_default_timeout(20_000)
    yield page
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    assert asked
    assert console == []
    context.close()


@pytest.mark.parametrize("name", PAGES)
def test_pages_open(page, address, name):
    page.goto(address + name, wait_until="networkidle")
    assert page.inner_text("article h1")


def test_pictures_are_shown(page, address):
    page.goto(address + "reading.html", wait_until="networkidle")
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")


def test_search_finds_a_page(page, address):
    page.goto(address + "index.html", wait_until="networkidle")
    page.click("[data-md-component=search-query]")
    page.keyboard.type("checkpoint")
    page.wait_for_selector(".md-search-result__item")
    assert "Resuming" in page.inner_text(".md-search-result__list")
