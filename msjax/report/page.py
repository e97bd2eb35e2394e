"""The parts of a self-contained HTML page: its frame, tables and embedded images."""

import base64
from collections.abc import Sequence
from html import escape

__all__ = ["frame", "image", "table"]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2em auto; padding: 0 1em;
       color: #1a1a1a; }
table { border-collapse: collapse; margin: .8em 0; font-size: 13px; }
th, td { padding: .25em .7em; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child, .text { text-align: left; }
img { max-width: 100%; }
.warning { background: #fff3e0; border-left: 4px solid #d55e00; padding: .4em .8em;
           margin: .4em 0; }
.note { color: #555; }
"""


def frame(title: str, body: Sequence[str]) -> str:
    """A whole page of the parts in `body`, which are HTML; the title is plain text."""
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]], text: Sequence[int] = ()) -> str:
    """A table of escaped cells; `text` names the columns that hold sentences."""

    def line(tag: str, cells: Sequence[str]) -> str:
        kinds = (" class=text" if i in text else "" for i in range(len(cells)))
        filled = (
            f"<{tag}{kind}>{escape(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True)
        )
        return f"<tr>{''.join(filled)}</tr>"

    body = "\n".join(line("td", row) for row in rows)
    return f"<table><thead>{line('th', header)}</thead><tbody>\n{body}\n</tbody></table>"


def image(png: bytes, caption: str) -> str:
    """A PNG inside the page; the caption is its alternative text."""
    data = base64.b64encode(png).decode()
    return f"<p><img alt='{escape(caption)}' src='data:image/png;base64,{data}'></p>"
