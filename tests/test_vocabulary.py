"""Words of the project: the field's terms, one word for one thing, former names only as aliases."""

from __future__ import annotations

import re
import subprocess

import pytest

from sources import ROOT

SUFFIXES = (".py", ".pyi", ".pyx", ".pxi", ".h", ".md", ".toml", ".yml", ".html", ".css", ".groovy", ".ipynb")
# The list of changes names former names, and this file the words; both are left out.
PASSED_OVER = {"CHANGELOG.md", "tests/test_vocabulary.py"}
# A line that keeps a former name working, or tests that, says so with one of these words.
ALIAS = re.compile(r"FORMER|[Ff]ormer|aliases=|in 0\.1\b|of nuclix 0\.1\b")
# Former words (regular expressions, whole words, whatever the case), and what is written in their place.
WORDS = {
    r"nights?|overnight": "batch processing, unattended run",
    r"glass": "background",
    r"crew|local_?crew|dask_?crew|desk": "executor",
    r"make_room|mark_foreign|torment": "discard_stale, unrecognised, crash_harness",
    r"spools?|spooled|spooling": "checkpoint",
    r"halos?": "context",
    r"nuclei_?tally|sketch(es)?": "SlideSummary",
    r"um_per_px": "mpp",
    r"guides?|guided|guided_?targets|guide_of": "auxiliary maps",
    r"own_?(objective|batches|schedule)": "CustomLoss, CustomSampler, CustomSchedule",
    r"patience": "stall timeout, early stopping",
    r"blend": "interpolate",
    r"--(flips|pixel|workers|start|extra)": "--tta, --downsample, --threads, --init-from, --extra-data",
    r"anew|athwart|mended?|beside|overleaf": "again, across, fixed, next to",
    r"by lot": "at random",
    r"(?!most_common)(least|greatest|most)_\w+": "min_, max_",
    r"say whether": "return whether",
    r"take note that": "record that",
    r"heard of": "last update",
    r"tells the story": "has the full log",
    r"is torn": "is partially written",
    r"bears the (final )?name": "exists",
    r"at work here": "using this folder",
    r"least_width": "min_feret_diameter",
}
# Names that are spelt so for another reason.
ALLOWED = {
    "tests/test_code_style.py": r"house",
    "mkdocs.yml": r"weather-night|Guide:",
}


def texts() -> list[tuple[str, list[str]]]:
    """Return the lines of every file of the project that holds words."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("the project's files are listed by git")
    names = [name for name in listed.stdout.split() if name.endswith(SUFFIXES) and name not in PASSED_OVER]
    return [(name, (ROOT / name).read_text(encoding="utf-8").splitlines()) for name in names if (ROOT / name).exists()]


def test_former_words_are_used_by_aliases_only() -> None:
    words = re.compile("|".join(rf"(?<![\w-])(?:{word})(?![\w-])" for word in WORDS), re.IGNORECASE)
    found = []
    for name, lines in texts():
        allowed = re.compile(ALLOWED.get(name, r"(?!)"))
        found += [
            f"{name}:{number}: {seen.group()}"
            for number, line in enumerate(lines, 1)
            for seen in words.finditer(line)
            if not ALIAS.search(line) and not allowed.search(line)
        ]
    assert found == []
