"""Text from anywhere (file names, errors, vendors' fields) as HTML that means nothing but itself."""

from __future__ import annotations

import html
from collections.abc import Sequence

from nuclix.engine.progress.text import one_line


def escape(value: object) -> str:
    """Return a value as text for an element or a quoted attribute.

    >>> escape('<img src=x onerror="alert(1)">')
    '&lt;img src=x onerror=&quot;alert(1)&quot;&gt;'
    """
    return html.escape(one_line(str(value)), quote=True)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "plain") -> str:
    """Return a table of cells that are HTML already; with an empty head it has none."""
    top = f"<thead><tr>{''.join(f'<th scope=col>{cell}</th>' for cell in head)}</tr></thead>" if head else ""
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table class="{kind}">{top}<tbody>{body}</tbody></table></div>'


def pairs(rows: Sequence[tuple[str, object]]) -> str:
    """Return names and values as a list of definitions; both are escaped here."""
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(value)}</dd>' for name, value in rows)}</dl>"


def badge(state: str) -> str:
    """Return a state as a coloured word."""
    return f'<span class="badge {escape(state)}">{escape(state)}</span>'
