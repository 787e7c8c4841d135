import base64
import io

import numpy as np
import pytest
from jinja2 import UndefinedError
from markupsafe import Markup
from PIL import Image

from digitfast.report.markup import (
    interval_text,
    one_line,
    percent,
    png_address,
    report_environment,
    seconds_text,
)

BAD = '<script>alert("1")</script>'
IN_TEXT = "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;"


def rendered(template, **values):
    return report_environment().from_string(template).render(**values)


@pytest.mark.parametrize("template", [
    "{{ name }}",
    '<p title="{{ name }}">',
    "<p title='{{ name }}'>",
    "{{ name | trim }}",
    "{% for key, value in {name: name}.items() %}{{ key }}{{ value }}{% endfor %}",
    "{% macro cell(text) %}<td>{{ text }}</td>{% endmacro %}{{ cell(name) }}",
    "{% macro note() %}{{ caller() }}{% endmacro %}{% call note() %}{{ name }}{% endcall %}",
])
def test_what_is_not_ours_is_text(template):
    made = rendered(template, name=BAD)
    assert IN_TEXT in made
    assert "<script" not in made
    assert "alert(\"" not in made


@pytest.mark.parametrize("quote", ["'", '"'])
def test_no_text_ends_its_attribute(quote):
    made = rendered(f"<p title={quote}{{{{ name }}}}{quote}>", name=f"a{quote} onclick={quote}b")
    assert made.count(quote) == 2


def test_text_is_one_line_that_prints():
    assert one_line("a\nb\x1b[1m\u202e") == r"'a\nb\x1b[1m\u202e'"
    assert rendered("{{ name }}", name="a\nb\u202e") == r"&#39;a\nb\u202e&#39;"
    assert rendered("{{ name }}", name="") == "&#39;&#39;"
    assert rendered("{{ a }} {{ b }}", a=3, b="é 数") == "3 é 数"


def test_markup_stays_markup():
    assert rendered("{{ chart }}", chart=Markup("<svg>\n</svg>")) == "<svg>\n</svg>"
    assert rendered("{{ part | percent }}", part=0.5) == "50.00\u00a0%"


def test_a_path_may_be_wrapped_after_each_slash():
    assert rendered("{{ path | wrappable }}", path="a/<b>/c") == "a/<wbr>&lt;b&gt;/<wbr>c"


def test_a_value_that_is_missing_is_an_error():
    with pytest.raises(UndefinedError, match="'nmae' is undefined"):
        rendered("{{ nmae }}", name="")


def test_numbers():
    assert percent(0.9947) == "99.47\u00a0%"
    assert percent(1, 1) == "100.0\u00a0%"
    assert interval_text(0.99312, 0.99591) == "95 % interval 99.31 to 99.59 %"
    assert seconds_text(3.14) == "3.1 s"
    assert seconds_text(600) == "10.0 min"
    assert rendered("{{ 12345 | count }}, {{ 3.14 | seconds }}") == "12,345, 3.1 s"


def test_an_image_is_in_its_address():
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    head, data = png_address(pixels).split(",")
    assert head == "data:image/png;base64"
    assert (np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) == pixels).all()
