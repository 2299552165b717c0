"""Text from data in Markdown: rendered, it is the text again, and nothing else."""

from __future__ import annotations

import html
import re

import pytest
from markdown_it import MarkdownIt

from nightloom.core.markup import code_markdown, plain_markdown

TEXTS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<!-- hidden",
    "**bold** _thin_ snake_case_name __init__ `code` ~~gone~~",
    "[click](javascript:alert(1)) ![seen](http://host/x.png) [a][b]",
    "# a heading",
    "- an item",
    "+ an item",
    "---",
    "===",
    "> a quote",
    "12. a number",
    "1) a number",
    "a | b",
    "&lt;b&gt; R&D &amp; &#60;",
    "\\<b> \\",
    "+0.12 of 0.9 (2.0%) is -1",
]


def rendered(text: str) -> str:
    """The HTML of a paragraph, a list or a table as GitHub's dialect has it, without their own tags."""
    made = MarkdownIt("gfm-like", {"linkify": False}).render(text)
    return re.sub(r"</?(?:p|ul|li|table|thead|tbody|tr|th|td|code)>\n?", "", made).strip()


@pytest.mark.parametrize("text", TEXTS)
def test_it_is_read_as_it_is_written(text: str) -> None:
    for place in (plain_markdown(text), f"- {plain_markdown(text)}"):
        assert html.unescape(rendered(place)) == text
    assert html.unescape(rendered(f"| {plain_markdown(text)} |\n| --- |\n")) == text
    assert html.unescape(rendered(f"- {code_markdown(text)}")) == text


def test_it_stays_on_its_line() -> None:
    assert plain_markdown("a\n\n# b\r\n<i>") == "a # b &lt;i>"
    assert code_markdown("a\n`b``") == "``` a `b`` ```"
