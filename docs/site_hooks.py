"""What `mkdocs build` needs to make one site of docs/, nbs/ and some files beside them.

The pages link to each other as in the repository: `../nbs/…` from docs/, `../docs/…` from nbs/. The
site has the pages of docs/ at its top, so the hooks shorten these links.
"""
import re
from pathlib import Path

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
#: Files outside docs/ that the site holds, at the same places as in the repository.
OUTSIDE = (
    "nbs/*.ipynb",
    "nbs/images/*.png",
    "benchmarks/README.md",
    "benchmarks/results/*",
    "digitfast/packed/README.md",
    "settings.ini",
    "CHANGELOG.md",
    "LICENSE",
)
#: What a notebook's page would fetch from other hosts: MathJax and Mermaid, which none here needs.
FETCHES = (
    r"<!-- Load mathjax -->.*?<!-- End of mathjax configuration -->",
    r'<script type="module">(?:(?!</script>).)*mermaid.*?</script>',
)


@event_priority(100)  # before mkdocs-jupyter, which looks for notebooks
def on_files(files, config):
    "Add the files of `OUTSIDE`."
    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def on_page_markdown(markdown, page, **_):
    "Return the page with its links to files outside docs/ as they are in the site."
    return markdown if "/" in page.file.src_uri else markdown.replace("](../", "](")


def on_page_content(html, page, **_):
    "Return a notebook's page without `FETCHES`, and with the links of the site."
    if not page.file.src_uri.endswith(".ipynb"):
        return re.sub(r"(<code>[^<]*)\\\|", r"\1|", html)  # a | in code, escaped as in a table
    for pattern in FETCHES:
        html = re.sub(pattern, "", html, flags=re.S)
    html = html.replace('href="../README.md', 'href="../index.html')
    html = re.sub(r'href="\.\./docs/([\w-]+)\.md', r'href="../\1.html', html)
    return re.sub(r'href="([\w-]+)\.ipynb', r'href="\1.html', html)
