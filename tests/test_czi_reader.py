"""Zeiss CZI, written by Zeiss' library: the conformance suite, scenes, kinds of pixels, and what is refused."""

from __future__ import annotations

import importlib.util
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from nuclix.engine.errors import SlideError, UnsupportedSlideError
from nuclix.engine.geometry import Box
from nuclix.engine.slide.open import open_slide
from nuclix.plugins.readers.czi import CziReader
from nuclix.testing.reader import CHECKS, Check
from slides import noise_image, smooth_image
from vendors import write_czi

pytest.importorskip("pylibCZIrw")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_czi(tmp_path_factory.mktemp("czi") / "a.czi", [(200, 100, smooth_image(777, 905))])


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: Check, made: Path) -> None:
    check(CziReader, made)


def test_facts(made: Path) -> None:
    with closing(open_slide(made)) as slide:
        assert isinstance(slide, CziReader)
        assert slide.info.vendor == "zeiss"
        assert slide.info.scale is not None
        assert slide.info.scale.mpp == pytest.approx(0.25)
        assert slide.info.scale_source == "vendor metadata"
        assert (slide.read(0, Box(0, 0, 777, 905)) == smooth_image(777, 905)).all()


def test_scenes_lie_on_white(tmp_path: Path) -> None:
    scenes = [(-50, 30, noise_image(90, 120)), (100, 400, noise_image(60, 70, 1))]
    with closing(CziReader.open(write_czi(tmp_path / "a.czi", scenes))) as slide:
        expected = np.full((210, 440, 3), 255, np.uint8)
        expected[:90, :120] = scenes[0][2]
        expected[150:, 370:] = scenes[1][2]
        assert (slide.read(0, Box(0, 0, 210, 440)) == expected).all()


def test_other_pixels(tmp_path: Path) -> None:
    grey = noise_image(90, 120)[..., :1]
    with closing(CziReader.open(write_czi(tmp_path / "grey.czi", [(0, 0, grey)]))) as slide:
        assert (slide.read(0, Box(0, 0, 90, 120)) == grey).all()
    deep = noise_image(90, 120).astype(np.uint16) * 257
    with closing(CziReader.open(write_czi(tmp_path / "deep.czi", [(0, 0, deep)]))) as slide:
        assert np.abs(slide.read(0, Box(0, 0, 90, 120)).astype(int) - deep // 257).max() <= 1
    with pytest.raises(SlideError, match=r"16\.czi: has 1 channels of Gray16"):
        CziReader.open(write_czi(tmp_path / "16.czi", [(0, 0, deep[..., :1])]))


def test_without_a_scale(tmp_path: Path) -> None:
    with closing(CziReader.open(write_czi(tmp_path / "a.czi", [(0, 0, noise_image(90, 120))], None))) as slide:
        assert slide.info.scale is None


def test_without_the_library(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert CziReader.recognises(made)
    with pytest.raises(UnsupportedSlideError, match=r"a\.czi: .*pip install pylibCZIrw"):
        CziReader.open(made)
