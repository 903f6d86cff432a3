"""The default model through ``nuclix run`` as users run it: JPEG tiles, full patches, any threads, a kill in between.

Networks with margins, JPEG and half precision show what the pixel-wise models of the other tests can't.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from crash_harness import committed_rows
from end_to_end import LONG, nuclix, nuclix_here, results, wait_until
from nuclix.engine.evaluation.evaluate import evaluate
from nuclix.engine.geometry import Box
from nuclix.engine.slide.synthetic import SyntheticSlide, make_synthetic_slide

EDGE = 1280  # px: two rows and columns of the model's patches
# The smallest block, a patch, gives the most rows to resume from; the default block holds the whole slide.
REFERENCE = ("--threads", 1, "--batch", 1, "--block", 672)
ANY_DEVICE = [pytest.param("cpu", id="cpu"), pytest.param("cuda", id="cuda", marks=pytest.mark.gpu)]


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> SyntheticSlide:
    return make_synthetic_slide(tmp_path_factory.mktemp("slides") / "made.tif", EDGE)


def command(slide: SyntheticSlide, out: Path, device: str, *options: object) -> list[object]:
    return ["run", slide.path, "--out", out, "--device", device, *options]


def run(slide: SyntheticSlide, out: Path, device: str, *options: object) -> dict[str, str]:
    end = nuclix_here(*command(slide, out, device, *options))
    assert end.code == 0, end.errors
    return results(out)


@pytest.fixture(scope="module")
def reference(slide: SyntheticSlide, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reference")
    run(slide, out, "cpu", *REFERENCE)
    return out


def test_the_nuclei_are_those_that_were_drawn(reference: Path, slide: SyntheticSlide, tmp_path: Path) -> None:
    """Made nuclei are easy, so the scores are high; a change that costs accuracy shows here."""
    import tifffile

    truth = tmp_path / "made.tif"
    tifffile.imwrite(truth, slide.labels(Box(0, 0, slide.height, slide.width)))
    (scores,) = evaluate(reference / "made.geojson", truth).images.values()
    assert scores.aji > 0.7
    assert scores.f1 > 0.85


@pytest.mark.parametrize("options", [("--threads", 2, "--batch", 3, "--block", 672), ("--threads", 2)], ids=str)
def test_threads_batches_and_blocks_do_not_show(
    options: tuple[object, ...], reference: Path, slide: SyntheticSlide, tmp_path: Path
) -> None:
    assert run(slide, tmp_path, "cpu", *options) == results(reference)


@pytest.mark.parametrize("device", ANY_DEVICE)
def test_a_killed_run_resumes_to_the_same_bytes(
    device: str, reference: Path, slide: SyntheticSlide, tmp_path: Path
) -> None:
    if device == "cuda" and not _has_gpu():
        pytest.skip("no CUDA device")
    expected = results(reference) if device == "cpu" else run(slide, tmp_path / "whole", device, *REFERENCE)
    out = tmp_path / "out"
    process = nuclix(*command(slide, out, device, *REFERENCE))
    wait_until(lambda: committed_rows(out) > 0 or process.poll() is not None)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=LONG)
    assert run(slide, out, device, *REFERENCE) == expected
    record = json.loads((out / "made.json").read_text())
    assert record["counts"]["rows_resumed"] > 0, "the run was over before it was killed: the slide is too small"


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
