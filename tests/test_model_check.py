"""A model or a parameter that can't work is one message at the start, with exit code 2, before any slide is begun."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from end_to_end import config_for, make_model, make_slide, nuclix_here, run_options
from nuclix.engine.errors import ModelError, NuclixError, UsageError
from nuclix.engine.segmentation.slide import SegmentationContext, make_context

TOML = """
name = "stranger"
method = "theirs"
maps = ["distance"]
postprocessor = "dist"
scale = {{ mpp = 0.25 }}
patch = {{ size = {size}, margin = {margin} }}
classes = [{{ name = "Nucleus", color = [255, 0, 0] }}]
parameters = {{ p1 = 0.5 }}
"""


class Blur(torch.nn.Module):
    """A network that looks `reach` px around a pixel, saved as any training script would save it."""

    def __init__(self, reach: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 1, 2 * reach + 1, padding=reach)
        torch.nn.init.constant_(self.layer.weight, 1 / (3 * 255 * (2 * reach + 1) ** 2))
        torch.nn.init.zeros_(self.layer.bias)
        self.to(dtype)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images.to(self.layer.weight.dtype))


class Table(Blur):
    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"distance": self.layer(images.to(self.layer.weight.dtype))}


class Pair(Blur):
    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = self.layer(images.float())
        return maps, maps


class Nothing(Blur):
    def forward(self, images: torch.Tensor) -> None:
        return None


class Wide(Blur):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat(
            [self.layer(images.to(self.layer.weight.dtype)), self.layer(images.to(self.layer.weight.dtype))], 1
        )


class Coarse(Blur):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images.to(self.layer.weight.dtype))[:, :, ::2, ::2]


class Whole(Blur):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images.to(self.layer.weight.dtype)).to(torch.int64)


class Invalid(Blur):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images.to(self.layer.weight.dtype)) / 0 - self.layer(images.to(self.layer.weight.dtype)) / 0


class Raising(Blur):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.size(1) == 3:
            raise ValueError("I want four channels")
        return self.layer(images.to(self.layer.weight.dtype))


def saved(path: Path, module: torch.nn.Module, *, margin: int = 16, size: int = 64) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(module), str(path))
    path.with_suffix(".toml").write_text(TOML.format(size=size, margin=margin))
    return path


def context_of(path: Path, **options: Any) -> SegmentationContext:
    return make_context(replace(config_for(path.parent, path), **options), time.time())


@pytest.mark.parametrize("reach", [1, 5, 16])
def test_a_network_of_a_stranger_runs(tmp_path: Path, reach: int) -> None:
    context = context_of(saved(tmp_path / "x.pt", Blur(reach)))
    assert context.notes == () and context.predictor.channels == 1


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (Table(1), r"returns a dict, not one tensor of shape \(1, 1, 64, 64\)"),
        (Pair(1), "returns a tuple, not one tensor"),
        (Nothing(1), "returns a NoneType, not one tensor"),
        (Wide(1), r"shape is \(1, 2, 64, 64\); its card says \(1, 1, 64, 64\)"),
        (Coarse(1), r"shape is \(1, 1, 32, 32\)"),
        (Whole(1), r"of type torch\.int64; maps are floating-point"),
        (Raising(1), "the network failed: .*I want four channels"),
        (Invalid(1), "hold values that are not finite numbers"),
        (Blur(40), r"margin of 16 px is too small: .* change by up to \d+ % of their range"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, torch.nn.Module) else "",
)
def test_a_network_that_can_not_work_is_named_at_the_start(tmp_path: Path, module: torch.nn.Module, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        context_of(saved(tmp_path / "x.pt", module))


def test_a_margin_that_is_a_little_too_small_is_a_warning_in_the_records(tmp_path: Path) -> None:
    module = Blur(20)
    with torch.no_grad():
        module.layer.weight[:, :, 4:-4, 4:-4] += 1 / (3 * 255 * 33**2)
        module.layer.weight *= 0.05
        module.layer.weight[:, :, 4:-4, 4:-4] *= 100
    (note,) = context_of(saved(tmp_path / "x.pt", module)).notes
    assert "looks further than its margin of 16 px" in note


def test_half_precision_output_is_taken(tmp_path: Path) -> None:
    assert context_of(saved(tmp_path / "x.pt", Blur(2, torch.float16))).notes == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ('maps = ["distance"]', r"gives the maps depth; its post-processor dist takes distance"),
        ('postprocessor = "dist"', "nonesuch"),
        ("margin = 16", "leaves 2 of 98 px"),
        ("mpp = 0.25", "scale of 1e-09 um/px is not within"),
        ("p1 = 0.5", "p1 must be a finite number"),
        ('name = "stranger"', r"control character '\\x1b'"),
        ("size = 64", "larger than 8192 px"),
    ],
)
def test_a_card_that_can_not_work_is_explained(tmp_path: Path, change: str, said: str) -> None:
    path = saved(tmp_path / "x.pt", Blur(1))
    other = {
        'maps = ["distance"]': 'maps = ["depth"]',
        'postprocessor = "dist"': 'postprocessor = "nonesuch"',
        "margin = 16": "margin = 48, multiple = 1",
        "mpp = 0.25": "mpp = 1e-9",
        "p1 = 0.5": "p1 = -1",
        'name = "stranger"': r'name = "\u001b[31mred"',
        "size = 64": "size = 1048576",
    }
    text = path.with_suffix(".toml").read_text().replace(change, other[change])
    path.with_suffix(".toml").write_text(text.replace("size = 64, margin = 48", "size = 98, margin = 48"))
    with pytest.raises(NuclixError, match=said):
        context_of(path)


def test_parameters_of_the_post_processing_are_options_of_the_run(tmp_path: Path) -> None:
    path = make_model(tmp_path / "red.pt")
    post: Any = context_of(path, set=("p2=2.5", "min_area=30")).post
    assert (post.p1, post.p2, post.min_area) == (0.5, 2.5, 30)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("p3=1", r"'p3=1' is not NAME=VALUE with NAME one of p1, p2, connectivity, min_area"),
        ("p2", "'p2' is not NAME=VALUE"),
        ("p2=high", "'p2': expected float, found 'high'"),
        ("connectivity=5", "connectivity must be 4 or 8"),
        ("min_area=-1", "min_area must be at least 0"),
        ("min_area=1000000000000", "32 bits"),
    ],
)
def test_a_wrong_parameter_is_wrong_usage(tmp_path: Path, words: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        context_of(make_model(tmp_path / "red.pt"), set=(words,))


def run(tmp_path: Path, model: Path, *options: object) -> tuple[int, str]:
    end = nuclix_here("run", tmp_path / "slides", *run_options(tmp_path / "out", model), *options)
    return end.code, end.said + end.errors


def test_one_message_exit_code_2_and_no_slide_is_begun(tmp_path: Path) -> None:
    for seed in range(2):
        make_slide(tmp_path / "slides" / f"{seed}.tif", seed, 200, 200)
    code, said = run(tmp_path, saved(tmp_path / "x.pt", Table(1)))
    assert code == 2 and said.count("returns a dict") == 1 and "failed" not in said
    (tmp_path / "x.toml").unlink()
    code, said = run(tmp_path, tmp_path / "x.pt")
    assert code == 2 and "holds no nuclix.json" in said and 'maps = ["distance"]' in said
    assert not list(tmp_path.glob("out/*.geojson"))


def test_a_minimum_score_drops_nuclei_and_is_in_key_and_record(tmp_path: Path) -> None:
    import json

    make_slide(tmp_path / "slides" / "a.tif", 1, 200, 200)
    model = make_model(tmp_path / "red.pt")

    def scores() -> list[float]:
        features = json.loads((tmp_path / "out" / "a.geojson").read_text())["features"]
        return [item["properties"]["measurements"]["Detection probability"] for item in features]

    assert run(tmp_path, model, "--set", "p2=0.1")[0] == 0
    every = scores()
    code, said = run(tmp_path, model, "--min-score", "0.9", "--set", "p2=0.1", "--recompute")
    if code == 2 and "--recompute" in said:  # before that option exists
        code, said = run(tmp_path, model, "--min-score", "0.9", "--set", "p2=0.1")
    assert code == 0, said
    assert 0 < len(scores()) < len(every) and min(scores()) >= 0.9 > min(every)
    record = json.loads((tmp_path / "out" / "a.json").read_text())
    assert record["settings"]["min_score"] == 0.9 and record["model"]["parameters"]["p2"] == 0.1
    assert record["counts"]["nuclei"] == len(scores())
