"""The page "Your own model", step by step: what it shows is run in order, in one folder."""

from __future__ import annotations

import json
import re
import shlex
import warnings
from pathlib import Path

import pytest

from end_to_end import blobs
from nuclix.engine.cli import main
from slides import write_slide
from sources import ROOT

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_the_page_works_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = blobs(3, 420, 500)
    pixels[:, 250:, 2] = 255
    write_slide(tmp_path / "slide.tif", pixels, mpp=0.25, compression="none")
    blocks = BLOCK.findall((ROOT / "docs" / "own-model.md").read_text(encoding="utf-8"))
    assert len([kind for kind, _ in blocks if kind != "text"]) == 9
    namespace: dict[str, object] = {"__name__": "page"}
    printed, earlier = {}, ""
    for kind, text in blocks:
        if kind == "python":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exec(text, namespace)
        elif kind == "toml":
            (tmp_path / text.splitlines()[0].removeprefix("# ")).write_text(text)
        elif kind == "console":
            words = shlex.split(text.removeprefix("$ nuclix "))
            if words[0] == "evaluate":  # any truth will do: here the result itself
                (tmp_path / "truth.geojson").write_text(earlier)
            assert main(words) == 0, text
            printed[words[0]] = capsys.readouterr().out
            if words[0] == "run":
                earlier = (tmp_path / "results" / "slide.geojson").read_text()
                names = {feature["properties"]["classification"]["name"] for feature in json.loads(earlier)["features"]}
                assert names == ({"Other", "Lymphocyte"} if "--class-map" in words else {"Other", "Blue"})
    assert "margin 0 px" in printed["pack"]
    assert "warning" not in printed["pack"]
    assert "three-class U-Net" in printed["info"]
    assert "mPQ" in printed["evaluate"]
