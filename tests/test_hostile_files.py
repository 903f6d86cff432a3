"""Hostile files are read or refused in a line that names them, in bounded time and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hostile import FAMILIES, texts

SECONDS = 60  # of processor time for a family of files; each file takes milliseconds
MEMORY = 400 << 20  # bytes that reading any of them may take at its peak, with the libraries
ADDRESS_SPACE = 12 << 30  # beyond it allocations fail: a guard for the machine, not what is measured

# Reads each path of its standard input in a process that may be killed; prints an outcome a line.
READ = """
import json, os, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[1]), int(sys.argv[1])))
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), int(sys.argv[2])))
from contextlib import closing
from pathlib import Path
from nuclix.engine.errors import SlideError
from nuclix.engine.geometry import Box
from nuclix.engine.slide.open import fingerprint, open_slide
for line in sys.stdin.buffer.read().split(b"\\0"):
    path = Path(os.fsdecode(line))
    print(json.dumps({"path": os.fsdecode(line)}), flush=True)
    try:
        fingerprint(path)
        with closing(open_slide(path)) as slide:
            for level, size in enumerate(slide.info.levels):
                slide.read(level, Box(0, 0, min(size.height, 300), min(size.width, 300)))
                slide.read(level, Box(size.height - 3, size.width - 3, 9, 9))
            if hasattr(slide, "uniform"):
                slide.uniform(0, Box(0, 0, 1, 1))
        outcome = {"read": str(slide.info.levels[0])}
    except SlideError as error:
        outcome = {"error": str(error)}
    except BaseException as error:
        outcome = {"crash": f"{type(error).__name__}: {error}"}
    print(json.dumps(outcome), flush=True)
status = Path("/proc/self/status")  # getrusage's peak is that of the parent process where it is higher
peaks = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")]
print(json.dumps({"peak": int(peaks[0]) * 1024}))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory and limits are read as Linux has them")
@pytest.mark.parametrize(
    "family",
    [pytest.param(family, marks=() if family is texts else pytest.mark.slow) for family in FAMILIES],
    ids=lambda family: family.__name__,
)
def test_each_is_read_or_refused(family: Callable[[Path], Iterator[Path]], tmp_path: Path) -> None:
    paths = list(dict.fromkeys(family(tmp_path)))
    child = subprocess.run(
        [sys.executable, "-W", "error", "-c", READ, str(SECONDS), str(ADDRESS_SPACE)],
        input=b"\0".join(os.fsencode(path) for path in paths),
        capture_output=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    lines = [json.loads(line) for line in child.stdout.splitlines()]
    assert child.returncode == 0, (lines[-1], child.stderr.decode()[-2000:])
    assert len(lines) == 2 * len(paths) + 1
    wrong = [
        (path["path"], outcome)
        for path, outcome in zip(lines[:-1:2], lines[1:-1:2], strict=True)
        if "crash" in outcome or not is_clear(path["path"], outcome)
    ]
    assert not wrong
    assert child.stderr == b""
    assert lines[-1]["peak"] < MEMORY


def is_clear(path: str, outcome: dict[str, str]) -> bool:
    """Return whether an error is a line that begins with the file's name; what is read is fine too."""
    text = outcome.get("error", path)
    return text.startswith(path) and "\n" not in text.removeprefix(path)


@pytest.mark.slow
def test_there_are_two_hundred(tmp_path: Path) -> None:
    count = 0
    for number, family in enumerate(FAMILIES):
        folder = tmp_path / str(number)
        folder.mkdir()
        count += len(set(family(folder)))
    assert count >= 200
