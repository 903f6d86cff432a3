"""The documentation: links, install hints without an index, a site that loads nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sources import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PLANNED: set[str] = set()  # and a page that is made from the notebook:
MADE = {"notebooks/quickstart.md"}
LINK = re.compile(r"\]\(([^)#\s]+)")
OF_THE_WEB = re.compile(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"?https?://", re.IGNORECASE)


def test_links_lead_to_files() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in LINK.findall(page.read_text(encoding="utf-8"))
        if "://" not in target and target not in PLANNED | MADE and not (page.parent / target).exists()
    ]
    assert not broken


def test_nothing_is_installed_from_an_index_that_does_not_have_it() -> None:
    modules = [path for folder in ("engine", "plugins") for path in (ROOT / folder).rglob("*.py")]
    for page in (*PAGES, *modules):
        assert "nuclix[" not in page.read_text(encoding="utf-8"), page


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="needs the extra docs")
def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    links = ROOT / "build" / "mypy" / "nuclix"  # as `make docs` makes them
    links.mkdir(parents=True, exist_ok=True)
    for package in ("engine", "ext", "plugins", "testing"):
        if not (links / package).exists():
            (links / package).symlink_to(ROOT / package)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for page in tmp_path.rglob("*.html"):
        seen = [found for found in OF_THE_WEB.findall(page.read_text(encoding="utf-8")) if "canonical" not in found]
        assert not seen, f"{page.name}: {seen}"
    assert "load_model" in (tmp_path / "reference" / "python.html").read_text(encoding="utf-8")
