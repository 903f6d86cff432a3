"""The environment of the report's templates, and what all pages share."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nuclix.engine.progress.text import duration, grouped, moment, one_line, significant

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"


def environment() -> Environment:
    """Return the templates' environment: everything is escaped, names are reduced to one printable line."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def finalize(value: Any) -> Any:
        return one_line(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    made = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, finalize=finalize
    )
    formats = {"grouped": grouped, "significant": significant, "duration": duration, "moment": moment}
    made.filters.update(formats)
    made.filters["default_none"] = lambda value, name: "" if value is None else formats[name](value)
    return made


def page_shell(styles: tuple[str, ...], script: str = "") -> dict[str, Any]:
    """Return the parts of a self-contained page: its content security policy, style and script.

    Parameters
    ----------
    styles : tuple of str
        Names of style sheets among the templates.
    script : str
        Name of a script among the templates; empty for none.

    Returns
    -------
    dict
        ``policy``, ``style`` and ``script``: no script but this one can run, and nothing is loaded from anywhere.
    """
    from markupsafe import Markup

    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    source = _read(script) if script else ""
    if script:
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'"
    style = "".join(map(_read, styles))
    return {"policy": Markup(policy), "style": Markup(style), "script": Markup(source)}


def _read(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
