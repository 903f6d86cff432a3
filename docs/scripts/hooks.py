"""Hooks of mkdocs: files of the root and notebooks as pages, and a navigation without pages that do not exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
OF_THE_ROOT = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md", "security.md": "SECURITY.md"}
# Links from the root's files into docs/, and from pages to files that are no pages.
OPTIONS_MARK = "<!-- options of nuclix run -->"
PLANNED: tuple[str, ...] = ()  # pages that others link to; a link to one that is not written yet is plain text
DOCS_LINK = re.compile(r"\]\(docs/")
SOURCE_LINK = re.compile(r"\[([^\]]+)\]\((?:\.\./)+(?!images|notebooks)(?:plugins|tests|engine|ext|testing)/[^)]*\)")
SOURCE_LINK_OF_THE_ROOT = re.compile(r"\[([^\]]+)\]\((?:plugins|tests|engine|ext|testing|Makefile|LICENSE)[^)]*\)")


def on_config(config: Any) -> Any:
    """Leave pages out of the navigation that are not there (a page may be written after the site's plan)."""
    made = {*OF_THE_ROOT, *(f"notebooks/{path.stem}.md" for path in (ROOT / "docs" / "notebooks").glob("*.ipynb"))}
    config.nav = _existing(config.nav, made)
    return config


def _existing(items: list[Any], made: set[str]) -> list[Any]:
    kept = []
    for item in items:
        ((title, target),) = item.items()
        if isinstance(target, list):
            kept.append({title: _existing(target, made)})
        elif target in made or (ROOT / "docs" / target).is_file():
            kept.append(item)
    return kept


def on_files(files: Files, config: Any) -> Files:
    """Add pages that lie elsewhere or are made from something else."""
    for page, source in OF_THE_ROOT.items():
        text = DOCS_LINK.sub("](", (ROOT / source).read_text(encoding="utf-8"))
        files.append(File.generated(config, page, content=SOURCE_LINK_OF_THE_ROOT.sub(r"\1", text)))
    for notebook in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        page = f"notebooks/{notebook.stem}.md"
        files.append(File.generated(config, page, content=notebook_as_markdown(notebook)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in the table of options, and turn links to source files into plain names: a site has no source tree."""
    if OPTIONS_MARK in markdown:
        markdown = markdown.replace(OPTIONS_MARK, options_table())
    for page in PLANNED:
        if not (ROOT / "docs" / page).is_file():
            markdown = re.sub(rf"\[([^\]]+)\]\({re.escape(page)}\)", r"\1", markdown)
    for page, source in OF_THE_ROOT.items():
        markdown = re.sub(rf"\]\((?:\.\./)?{re.escape(source)}\)", f"]({page})", markdown)
    return SOURCE_LINK.sub(r"`\1`", markdown)


def options_table() -> str:
    """Return the options of a run as Markdown tables, one for each group."""
    from nuclix.engine.run_config import option_specs

    lines: list[str] = []
    group = ""
    for spec in option_specs():
        if spec.group != group:
            group = spec.group
            lines += [
                "",
                f"### {group.capitalize()}",
                "",
                "| key | command line | meaning | default |",
                "| - | - | - | - |",
            ]
        flag = f"--{'no-' if spec.default is True else ''}{spec.name.replace('_', '-')}"
        flag = f"{spec.metavar} ..." if spec.name == "inputs" else f"{flag} {spec.metavar}".strip()
        if spec.type is bool:
            lines.append(f"| `{spec.name}` | `{flag}` | {spec.help} | {'yes' if spec.default else 'no'} |")
            continue
        plain = spec.default is None or spec.default == () or spec.name == "threads"
        default = "" if plain else ", ".join(spec.default) if isinstance(spec.default, tuple) else str(spec.default)
        flag = flag.replace("|", "\\|")
        lines.append(f"| `{spec.name}` | `{flag}` | {spec.help} | {default} |")
    return "\n".join(lines)


def notebook_as_markdown(path: Path) -> str:
    """Return a notebook's cells as Markdown, without outputs."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    parts = []
    for cell in cells:
        text = "".join(cell["source"])
        parts.append(f"```python\n{text}\n```" if cell["cell_type"] == "code" else text)
    return "\n\n".join(parts) + "\n"
