"""The models that come with the package: small, loadable, consistent, and they see nuclei and nothing on background."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blobs import blobs
from nuclix.engine import registry
from nuclix.engine.inference.model_file import find_model, load_model, read_card
from nuclix.engine.parameters import from_mapping
from nuclix.engine.training.validation import forward, label

NAMES = registry.names(registry.WEIGHTS)
LARGEST = 10_000_000  # bytes: they travel with every installation


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_model_is_small_and_described(name: str) -> None:
    path = find_model(name)
    assert path.stat().st_size < LARGEST
    card = read_card(path)
    assert card.name == name
    assert card.training["licence of the data"] not in ("", "not stated")
    text = path.with_suffix(".md").read_text(encoding="utf-8")
    assert text.startswith(f"# {name}\n")
    assert card.scores
    for title, rows in card.scores.items():
        assert f"{rows['mean']['aji']:.4f}" in text, f"the page and the card tell different scores: {title}"


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_model_fits_its_recipe_and_post_processor(name: str) -> None:
    card = read_card(find_model(name))
    kind: Any = registry.load(registry.RECIPES, card.method)
    given = card.training["recipe"]
    settings = {"mpp" if key == "um_per_px" else key: value for key, value in given.items()}  # its name in 0.1
    recipe = from_mapping(kind, settings, "card")
    assert (recipe.maps, recipe.scale) == (card.maps, card.scale)
    # A card may have a smaller margin than the reach of the network, where that was measured to make no difference.
    if card.margin_test:
        assert card.patch.multiple == recipe.patch.multiple and 0 < card.patch.margin <= recipe.patch.margin
    else:
        assert card.patch == recipe.patch
    assert recipe.postprocessor == card.postprocessor
    from_mapping(registry.load(registry.POSTPROCESSORS, card.postprocessor), card.parameters, "card")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_model_finds_discs_and_leaves_glass_alone(name: str) -> None:
    loaded = load_model(find_model(name))
    kind: Any = registry.load(registry.POSTPROCESSORS, loaded.card.postprocessor)
    split = from_mapping(kind, loaded.card.parameters, "card")

    def nuclei(image: np.ndarray) -> int:
        with torch.inference_mode():
            return int(label(split, forward(loaded.module, image, loaded.card.patch.multiple).numpy()).max())

    item = blobs("discs", (160, 160), seed=1)
    assert nuclei(item.image) >= 0.5 * len(np.unique(item.labels[item.labels > 0]))
    background = np.random.default_rng(0).normal(240, 2, (160, 160, 3)).clip(0, 255).astype(np.uint8)
    assert nuclei(background) == 0
    assert nuclei(np.full_like(background, 255)) == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_part_of_a_patch_has_the_maps_of_the_whole_patch(name: str) -> None:
    """Within the margin; the default model's is shorter than its network's reach, as its card says."""
    loaded = load_model(find_model(name))
    margin = loaded.card.patch.margin
    assert loaded.card.patch.dynamic
    image = blobs("discs", (2 * margin + 192, 2 * margin + 256), seed=1).image
    part = image[64 : 128 + 2 * margin, 64 : 192 + 2 * margin]
    with torch.inference_mode():
        whole, found = (
            loaded.module(torch.from_numpy(np.ascontiguousarray(pixels[None])).permute(0, 3, 1, 2))[0].numpy()
            for pixels in (image, part)
        )
    tolerance = (0.05 if loaded.card.margin_test else 1e-4) * float(np.ptp(whole))
    whole = whole[:, 64 + margin : 128 + margin, 64 + margin : 192 + margin]
    np.testing.assert_allclose(found[:, margin : margin + 64, margin : margin + 128], whole, atol=tolerance)


def test_training_and_validation_images_of_a_shipped_model_are_apart() -> None:
    for name in NAMES:
        card = read_card(find_model(name))
        trained = {*card.training["images"], *card.training.get("extra images", ())}
        # A model trained on all images has scores by a network that was trained without some of them, and says so.
        own = [rows for title, rows in card.scores.items() if "by a network trained in the same way" not in title]
        assert own and not any(set(rows) & trained for rows in own), name


def test_every_file_beside_the_weights_belongs_to_a_model() -> None:
    folder = find_model(NAMES[0]).parent
    assert {path.stem for path in folder.iterdir() if path.suffix in (".pt", ".md")} <= {*NAMES}
    assert all(Path(find_model(name)).parent == folder for name in NAMES)
