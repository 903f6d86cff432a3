"""Classes: votes inside nuclei, files that rename and merge them, a two-class network from slide to GeoJSON."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nuclix.engine import registry
from nuclix.engine.contracts import ModelCard, ObjectClass, PatchShape
from nuclix.engine.errors import ModelError, UsageError
from nuclix.engine.geometry import Scale
from nuclix.engine.run_config import RunConfig
from nuclix.engine.segmentation.classes import (
    CHANNELS,
    INDEX,
    ClassRule,
    check_classes,
    class_rule,
    find_nuclei,
    prepare_classes,
    read_class_map,
    vote,
)
from nuclix.engine.segmentation.detections import Detections, DetectsObjects
from nuclix.engine.segmentation.preparation import post_processor
from nuclix.engine.segmentation.result_key import result_key
from nuclix.ext.outlines import label_outlines
from nuclix.plugins.postprocessors.dist import Dist
from nuclix.plugins.postprocessors.stardist import StarDist

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
THREE = (ObjectClass("Tumour", RED), ObjectClass("Stroma", GREEN), ObjectClass("Lymphocyte", BLUE))


def card(classes: tuple[ObjectClass, ...] = THREE, class_maps: tuple[str, ...] = ()) -> ModelCard:
    from end_to_end import PATCH

    return ModelCard("m", "test", Scale(0.25), PATCH, ("distance",), "dist", {}, classes, class_maps=class_maps)


# ---- votes ----


def counted(labels: np.ndarray, maps: np.ndarray, rule: ClassRule) -> list[int]:
    """The majority as its definition reads, nucleus by nucleus in the order of first pixels."""
    out = []
    flat = labels.ravel().tolist()
    for label in dict.fromkeys(value for value in flat if value):
        pixels = [maps[:, row, col].tolist() for row, col in np.argwhere(labels == label)]
        if rule.form == INDEX:
            choices = [round(values[0]) - 1 for values in pixels if 1 <= round(values[0]) <= rule.count]
        else:
            choices = [values.index(max(values)) - rule.background for values in pixels]
            choices = [choice for choice in choices if choice >= 0]
            choices = choices or [values[1:].index(max(values[1:])) for values in pixels]
        counts = Counter(choices)
        out.append(min(range(rule.count), key=lambda k: (-counts[k], k)))
    return out


@given(data=st.data(), form=st.sampled_from([CHANNELS, INDEX]), background=st.booleans())
def test_a_nucleus_is_of_the_class_that_most_of_its_pixels_vote_for(data, form, background) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=7))
    labels = data.draw(hnp.arrays(np.int32, shape, elements=st.sampled_from([0, 1, 2, 5])))
    rule = ClassRule(3, form, background and form == CHANNELS)
    channels = 1 if form == INDEX else 3 + rule.background
    values = st.integers(0, 4).map(float)
    maps = data.draw(hnp.arrays(np.float32, (channels, *shape), elements=values))
    found = vote(labels, maps, rule)
    assert found.tolist() == counted(labels, maps, rule)
    assert len(found) == len(label_outlines(labels))


def test_values_that_are_no_numbers_do_not_vote_for_their_class() -> None:
    labels = np.ones((1, 3), np.int32)
    maps = np.array([[[np.nan, np.nan, 0]], [[0.1, 0.2, 1]], [[0, 0, 0]]], np.float32)
    assert vote(labels, maps, ClassRule(3)).tolist() == [1]
    numbers = np.array([[[np.nan, np.inf, 2]]], np.float32)
    assert vote(labels, numbers, ClassRule(3, INDEX)).tolist() == [1]


@pytest.mark.parametrize(
    ("maps", "expected"),
    [
        ((), None),
        (("a", "b", "c"), ClassRule(3)),
        (("none", "a", "b", "c"), ClassRule(3, CHANNELS, True)),
        (("type",), ClassRule(3, INDEX)),
    ],
)
def test_the_number_of_class_maps_says_how_they_are_read(maps, expected) -> None:
    assert class_rule(card(class_maps=maps), "m.pt") == expected


@pytest.mark.parametrize("maps", [("a", "b"), tuple("abcde")])
def test_class_maps_that_do_not_fit_the_classes_are_refused(maps) -> None:
    with pytest.raises(ModelError, match=r"m\.pt.*3 classes"):
        class_rule(card(class_maps=maps), "m.pt")


def test_classes_that_nothing_tells_apart_are_refused() -> None:
    with pytest.raises(ModelError, match="Tumour, Stroma, Lymphocyte"):
        check_classes(card(), Dist(), "m.pt")
    check_classes(card(classes=THREE[:1]), Dist(), "m.pt")
    check_classes(card(class_maps=("type",)), Dist(), "m.pt")


def test_class_numbers_are_not_averaged() -> None:
    with pytest.raises(ModelError, match="--tta"):
        prepare_classes(card(class_maps=("type",)), Dist(), RunConfig(tta=True), "m.pt")


@pytest.mark.parametrize("name", ["hovernet", "stardist", "cellpose", "boundary"])
def test_maps_with_directions_are_not_averaged(name: str) -> None:
    maps = registry.load(registry.POSTPROCESSORS, name)().maps  # type: ignore[operator]
    facts = replace(card(classes=THREE[:1]), maps=maps, postprocessor=name, parameters={}, patch=PatchShape(512, 32))
    post_processor(facts, RunConfig(), "m.pt")
    if name == "boundary":
        post_processor(facts, RunConfig(tta=True), "m.pt")
    else:
        with pytest.raises(ModelError, match=r"m\.pt.*--tta"):
            post_processor(facts, RunConfig(tta=True), "m.pt")


# ---- scores and classes of a post-processor ----


@dataclass(frozen=True)
class Every(Dist):
    """Gives every second nucleus the second class, and scores by label."""

    def detect(self, maps, mask) -> Detections:
        labels = self.split(maps, mask)
        numbers = np.arange(1, labels.max(initial=0) + 1)
        return Detections(labels, numbers / 100, numbers % 2)


def test_a_post_processor_gives_classes_and_scores() -> None:
    assert isinstance(Every(), DetectsObjects)
    assert not isinstance(Dist(), DetectsObjects)
    maps = np.array([[[3, 0, 2, 0, 4]]], np.float32)
    found = find_nuclei(Every(), maps, maps[0] > 0.5, None)
    assert found.scores is not None and found.classes is not None
    np.testing.assert_allclose(found.scores, [0.01, 0.02, 0.03])
    assert found.classes.tolist() == [1, 0, 1]


def test_stardist_scores_a_nucleus_by_its_centre() -> None:
    maps = np.zeros((33, 30, 40), np.float32)
    for col, probability in ((10, 0.7), (12, 0.6), (28, 0.9)):
        maps[0, 15, col], maps[1:, 15, col] = probability, 6
    post = StarDist(max_distance=8)
    found = find_nuclei(post, maps, post.foreground(maps), None)
    assert found.labels.max() == 2
    assert found.scores is not None
    np.testing.assert_allclose(found.scores, [0.7, 0.9], rtol=1e-6)  # in the order of first pixels
    small = replace(post, min_area=10_000)
    assert not len(find_nuclei(small, maps, post.foreground(maps), None).labels.nonzero()[0])


# ---- files ----


def test_a_class_map_renames_merges_and_recolours(tmp_path: Path) -> None:
    path = tmp_path / "classes.toml"
    path.write_text(
        '[Stroma]\nname = "Other"\ncolor = [1, 2, 3]\n[Lymphocyte]\nname = "Other"\n[Tumour]\ncolor = [9, 9, 9]\n'
    )
    mapping = read_class_map(path, THREE)
    assert mapping.classes == (ObjectClass("Tumour", (9, 9, 9)), ObjectClass("Other", (1, 2, 3)))
    assert mapping.table.tolist() == [0, 1, 1]
    assert mapping.named(np.array([4, 5])) == {"Tumour": 4, "Other": 5}


def test_classes_may_be_merged_into_one_of_the_model(tmp_path: Path) -> None:
    path = tmp_path / "classes.toml"
    path.write_text('[Lymphocyte]\nname = "Tumour"\n')
    mapping = read_class_map(path, THREE)
    assert mapping.classes == THREE[:2]
    assert mapping.table.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[Tumor]\nname = "x"\n', "no class 'Tumor'; its classes are Tumour, Stroma"),
        ("", "is empty"),
        ("[Tumour]\n", "Tumour: changes nothing"),
        ('[Tumour]\nname = ""\n', "Tumour: name must be a line of text"),
        ('[Tumour]\nname = " "\n', "Tumour: name must be a line of text"),
        ('[Tumour]\nname = "a\\nb"\n', "Tumour: name must be a line of text"),
        ("[Tumour]\ncolour = [1, 2, 3]\n", "colour"),
        ("[Tumour]\ncolor = [1, 2]\n", "color"),
        ("[Tumour]\ncolor = [1, 2, 300]\n", r"0\.\.255"),
        ('[Tumour]\nname = "x"\ncolor = [1, 2, 3]\n[Stroma]\nname = "x"\ncolor = [3, 2, 1]\n', "two colors"),
        ("Tumour = 3\n", "table"),
        ("[Tumour", "TOML"),
    ],
)
def test_a_bad_class_map_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "classes.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        read_class_map(path, THREE)
    assert str(path) in str(caught.value)


def test_results_depend_on_what_a_class_map_says_not_on_its_name(tmp_path: Path) -> None:
    def key(class_map: str | None = None) -> str:
        return result_key("s", "m", RunConfig(class_map=class_map), None)

    one, other = tmp_path / "a.toml", tmp_path / "b.toml"
    one.write_text('[Tumour]\nname = "T"\n')
    other.write_text('[Tumour]\nname = "T"\n')
    keys = [key(class_map=str(path)) for path in (one, other)]
    assert keys[0] == keys[1] != key()
    one.write_text('[Tumour]\nname = "U"\n')
    assert key(class_map=str(one)) != keys[0]
    with pytest.raises(UsageError, match="missing"):
        key(class_map=str(tmp_path / "missing.toml"))


# ---- end to end ----


def make_two_class_model(path: Path) -> Path:
    """Write a model of the red channel whose second class is what is blue."""
    import torch

    from end_to_end import PATCH
    from nuclix.engine.inference.model_file import save_model

    class TwoClasses(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            red, _, blue = images.float().unbind(1)
            return torch.stack([(255 - red) / 16, torch.full_like(red, 0.7), blue / 255], dim=1)

    facts = ModelCard(
        name="two",
        method="test",
        scale=Scale(0.25),
        patch=PATCH,
        maps=("distance",),
        postprocessor="dist",
        parameters={"p1": 0.5, "p2": 1.0},
        classes=(ObjectClass("Dark", RED), ObjectClass("Blue", BLUE)),
        class_maps=("dark", "blue"),
    )
    save_model(path, TwoClasses(), facts)
    return path


def features_of(path: Path) -> list[dict]:
    return json.loads(path.read_text())["features"]


def test_two_classes_from_slide_to_geojson_record_and_report(tmp_path: Path) -> None:
    from end_to_end import blobs
    from nuclix.engine.cli import main
    from slides import write_slide

    pixels = blobs(1, 300, 400)
    pixels[:, 200:, 2] = 255
    slide = write_slide(tmp_path / "slide.tif", pixels, mpp=0.25, compression="none")
    model = make_two_class_model(tmp_path / "two.pt")
    command = ["run", str(slide), "--model", str(model), "--no-tissue", "--threads", "1", "--quiet"]
    counts: list[Counter] = []
    for block in ("64", "400"):
        out = tmp_path / block
        assert main([*command, "--block", block, "--out", str(out)]) == 0
        features = features_of(out / "slide.geojson")
        for feature in features:
            kind = feature["properties"]["classification"]
            columns = np.array(feature["geometry"]["coordinates"][0])[..., 0]
            if columns.max() < 195:
                assert kind == {"name": "Dark", "color": list(RED)}
            if columns.min() > 205:
                assert kind == {"name": "Blue", "color": list(BLUE)}
        counts.append(Counter(feature["properties"]["classification"]["name"] for feature in features))
        record = json.loads((out / "slide.json").read_text())
        assert record["counts"]["nuclei_by_class"] == dict(sorted(counts[-1].items(), reverse=True))
        assert [item["name"] for item in record["model"]["classes"]] == ["Dark", "Blue"]
        area = 300 * 400 * 0.25**2 / 1e6  # of the slide, as background was computed too
        densities = record["counts"]["nuclei_per_mm2_by_class"]
        assert densities == {name: pytest.approx(counts[-1][name] / area) for name in ("Dark", "Blue")}
        (row,) = csv.DictReader((out / "summary.csv").read_text().splitlines())
        assert [row[f"nuclei: {name}"] for name in densities] == [str(counts[-1][name]) for name in densities]
        assert [row[f"nuclei_per_mm2: {name}"] for name in densities] == [
            f"{densities[name]:.6g}" for name in densities
        ]
    assert counts[0] == counts[1]
    assert min(counts[0].values()) > 20
    page = (tmp_path / "64" / "report.html").read_text()
    assert "Blue (" in page
    assert "rgb(0,0,255)" in page

    names = tmp_path / "names.toml"
    names.write_text('[Blue]\nname = "Dark"\n')
    assert main([*command, "--block", "400", "--out", str(out), "--class-map", str(names), "--recompute"]) == 0
    merged = features_of(out / "slide.geojson")
    assert {feature["properties"]["classification"]["name"] for feature in merged} == {"Dark"}
    assert len(merged) == sum(counts[0].values())
