"""`nuclix --help` answers at once because it imports next to nothing; what it imports is held here, not seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from end_to_end import make_model, make_slide
from slides import noise_image, write_slide

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


def test_main_works_in_a_script_without_a_guard(tmp_path: Path) -> None:
    """The worker's process must not import the script, which would start the run again."""
    slide, model = make_slide(tmp_path / "slide.tif", 1, 200, 200), make_model(tmp_path / "red.pt")
    words = ["run", str(slide), "--out", str(tmp_path / "out"), "--model", str(model), "--device", "cpu", "--quiet"]
    script = tmp_path / "script.py"
    script.write_text(f"from nuclix.engine.cli import main\nprint('once', main({words!r}))\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=False)
    assert (done.stdout, done.stderr) == ("once 0\n", "")
    assert (tmp_path / "out" / "slide.geojson").is_file()


# What a worker does up to the first patch that it gives to OpenVINO, on an SVS.
FIRST_PATCH = """
import os, sys
from pathlib import Path
from nuclix.engine.inference.runtime import preload
preload("dist-kumar16", "openvino", "cpu", "float32")
from nuclix.engine.batch.discover import SlideJob
from nuclix.engine.batch.layout import prepare_folder, slide_paths
from nuclix.engine.batch.worker import process_slide
from nuclix.engine.run_config import RunConfig
from nuclix.engine.segmentation.hooks import RunHooks
from nuclix.engine.segmentation.slide import make_context
from nuclix.plugins.model_sources.openvino import OpenVinoQueue

def submit(self, patch):
    print(*sys.modules, flush=True)
    os._exit(0)

OpenVinoQueue.submit = submit
slide, out = map(Path, sys.argv[1:])
config = RunConfig(inputs=(str(slide),), out=str(out), device="cpu", runtime="openvino", precision="float32")
prepare_folder(out)
hooks = RunHooks(lambda progress: None, lambda: False)
sys.exit(str(process_slide(SlideJob(slide, Path(slide.stem)), make_context(config, 0.0, 1), hooks)))
"""
NOT_BEFORE_IT = {"torch", "scipy", "skimage", "tiffslide", "zarr", "fsspec", "PIL", "openvino_telemetry"}


def test_the_first_patch_waits_for_no_library_that_it_does_not_need(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    slide = write_slide(tmp_path / "slide.svs", noise_image(700, 700))
    done = subprocess.run(
        [sys.executable, "-c", FIRST_PATCH, slide, tmp_path / "out"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    imported = done.stdout.split()
    assert done.returncode == 0, done.stderr[-500:]
    assert {"openvino", "tifffile"} <= set(imported)
    assert not NOT_BEFORE_IT & {name.partition(".")[0] for name in imported}
    assert "openvino.tools.ovc" not in imported
