"""`nuclix --help` answers at once because it imports next to nothing; what it imports is held here, not seconds."""

from __future__ import annotations

import subprocess
import sys

import pytest

# What costs a tenth of a second or more, each to be imported by the function that uses it.
HEAVY = {
    "PIL", "cv2", "dask", "geojson", "imagecodecs", "matplotlib", "numba", "numpy", "rich", "scipy", "shapely",
    "skimage", "sqlite3", "tifffile", "tiffslide", "torch", "zarr",
}  # fmt: skip


@pytest.mark.parametrize(
    "argv", [["--help"], ["--version"], ["plugins"], ["run", "--help"], ["info", "--help"], ["train", "--help"]]
)
def test_light_commands_import_nothing_heavy(argv: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "nuclix.engine.cli", *argv],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-500:]
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "nuclix.engine.cli.main" in imported
    assert not HEAVY & {name.partition(".")[0] for name in imported}
