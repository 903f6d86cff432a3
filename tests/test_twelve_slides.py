"""A run over twelve slides of real tissue, five of which are not as they should be."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from end_to_end import make_model, nuclix, results, run_options
from nuclix.engine.batch.ledger import DONE, FAILED, Ledger

pytestmark = [pytest.mark.shared, pytest.mark.slow]

SIZES = (1000, 1500, 2000, 2500, 3000, 4000)
GOOD = {*(f"tissue-{size}" for size in SIZES), "CMU-1-Small-Region", "background"}
BAD = {
    "truncated": "is cut short: level 0 reaches to byte",
    "corrupt": "the file is damaged",
    "no-scale": "states no scale; give it with --mpp",
    "notes": "not an image that any installed reader recognises",
}


def make_tissue(shared: Path, path: Path, size: int, *options: object) -> None:
    command = [sys.executable, shared / "tools" / "make_slide.py", shared / "data" / "kumar16" / "images", path]
    words = [*command, "--size", size, "--tissue", 0.3, *options]
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


def spoil(path: Path, begin: int, count: int) -> None:
    """Replace bytes by others."""
    with path.open("r+b") as file:
        file.seek(begin)
        file.write(np.random.default_rng(1).bytes(count))


@pytest.fixture
def slides(shared: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "slides"
    folder.mkdir()
    for seed, size in enumerate(SIZES, 1):
        make_tissue(shared, folder / f"tissue-{size}.svs", size, "--seed", seed)
    make_tissue(shared, folder / "no-scale.svs", 1000, "--mpp", 0)
    (folder / "truncated.svs").write_bytes((folder / "tissue-2500.svs").read_bytes()[:1_500_000])
    (folder / "notes.svs").write_text("stained on Tuesday\n" * 99)
    shutil.copyfile(folder / "tissue-2000.svs", folder / "corrupt.svs")
    spoil(folder / "corrupt.svs", 300_000, 60_000)
    shutil.copyfile(shared / "slides" / "CMU-1-Small-Region.svs", folder / "CMU-1-Small-Region.svs")
    background = np.full((2000, 3000, 3), 243, np.uint8)
    scale = {"resolution": (40000, 40000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(folder / "background.tif", background, tile=(256, 256), photometric="rgb", **scale)
    assert len(list(folder.iterdir())) == 12
    return folder


def test_the_good_ones_are_done_and_the_bad_ones_explained(slides: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = nuclix("run", slides, *run_options(out, make_model(tmp_path / "red.pt"), block=2048))
    said, errors = process.communicate(timeout=600)
    assert process.returncode == 1, errors
    assert said.startswith(f"8 done, 4 failed; results and report.html in {out}")
    ledger = Ledger(out, read_only=True)
    rows = {row.name: row for row in ledger.rows()}
    ledger.close()
    assert {name for name, row in rows.items() if row.state == DONE} == GOOD
    assert {name for name, row in rows.items() if row.state == FAILED} == set(BAD)
    page = (out / "report.html").read_text()
    for name, words in BAD.items():
        assert words in str(rows[name].error) and words in errors and words in page
        assert f"{name}: failed:" in errors
    assert set(results(out)) == {f"{name}.geojson" for name in GOOD}
    for name in GOOD:
        features = json.loads((out / f"{name}.geojson").read_text())["features"]
        assert len(features) == rows[name].record["counts"]["nuclei"]
        assert bool(features) == (name != "background")
