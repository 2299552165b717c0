"""Text from data as a piece of Markdown: titles, event names and reasons stay what they are, whatever they hold.

Pages that show Markdown (Prefect's artifacts, MLflow's notes and model cards) pass HTML on to the browser.
"""

from __future__ import annotations

import re

_MARKS = re.compile(r"[\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_])|!(?=\[)")
_AT_START = re.compile(r"^(?:>|#{1,6}(?=\s|$)|[+-](?=[\s-]|$)|=|\d{1,9}(?=[.)](?:\s|$)))")


def plain_markdown(text: str) -> str:
    """A text for a list, a sentence or a table cell: on one line, and without HTML, links or marks of Markdown."""
    line = _MARKS.sub(lambda found: f"\\{found[0]}", " ".join(text.split()))
    line = _AT_START.sub(lambda found: f"{found[0]}\\" if found[0].isdigit() else f"\\{found[0]}", line)
    # A lone & is left as it is; one that begins an entity would become its letter.
    return re.sub(r"&(?=[#\w]+;)", "&amp;", line).replace("<", "&lt;")


def code_markdown(text: str) -> str:
    """A path or command as code, whatever backticks it holds."""
    line = " ".join(text.split())
    fence = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    room = " " if line[:1] == "`" or line[-1:] == "`" else ""
    return f"{fence}{room}{line}{room}{fence}"
