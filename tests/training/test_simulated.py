"""The dummy data set of DIST's Algorithm 1, and the command that writes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from blobs import blob_labels
from nuclix.engine.cli import main
from nuclix.engine.training.dataset import load_dataset
from nuclix.engine.training.simulated import MIN_NUCLEI, Simulation, dilated, simulate, simulated, squares

small_labels = arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 4))


@settings(max_examples=80, deadline=None)
@given(small_labels, st.integers(0, 3))
def test_nuclei_grow_by_a_disc_and_the_larger_label_lies_on_top(labels: NDArray[np.int32], radius: int) -> None:
    rows, cols = np.indices(labels.shape)
    found = dilated(labels, radius)
    for row, col in np.ndindex(labels.shape):
        assert found[row, col] == labels[(rows - row) ** 2 + (cols - col) ** 2 <= radius**2].max()


def test_without_noise_each_nucleus_has_one_colour_and_the_ground_is_black() -> None:
    labels = blob_labels((80, 90), seed=1)
    image = simulate(labels, Simulation(nucleus_sigma=0, noise_sigma=0), np.random.default_rng(0))
    assert not image[labels == 0].any()
    colours = [np.unique(image[labels == name], axis=0) for name in np.unique(labels[labels > 0])]
    assert all(len(colour) == 1 for colour in colours)
    assert len(np.unique(np.concatenate(colours), axis=0)) == len(colours), "each its own"


def test_noise_is_as_algorithm_1_says() -> None:
    """Half-normal on the ground; inside nuclei that and normal noise, both independent from pixel to pixel."""
    labels = np.zeros((300, 300), np.int32)
    labels[:150] = 1
    rule = Simulation(colour_sigma=0, nucleus_sigma=10, noise_sigma=5)
    image = simulate(labels, rule, np.random.default_rng(0)).astype(float)
    ground, nucleus = image[labels == 0], image[labels == 1]
    half = 5 * np.sqrt(2 / np.pi)
    assert ground.mean() == pytest.approx(half, abs=0.05)
    assert ground.std() == pytest.approx(np.sqrt(25 - half**2 + 1 / 12), abs=0.05)  # 1/12: rounding
    assert nucleus.mean() == pytest.approx(127 + half, abs=0.1)
    assert nucleus.std() == pytest.approx(np.sqrt(100 + 25 - half**2), abs=0.1)
    assert abs(np.corrcoef(nucleus[:-1, 0], nucleus[1:, 0])[0, 1]) < 0.03
    assert abs(np.corrcoef(nucleus.T)[np.triu_indices(3, 1)]).max() < 0.03


def test_colours_are_drawn_by_the_paper() -> None:
    labels = np.arange(1, 4001, dtype=np.int32).reshape(40, 100)
    rule = Simulation(nucleus_sigma=0, noise_sigma=0)
    image = simulate(labels, rule, np.random.default_rng(0)).astype(float)
    assert image.mean() == pytest.approx(127, abs=4)
    inside = (image > 0) & (image < 255)
    assert inside.mean() == pytest.approx(0.7975, abs=0.02)  # a normal variable within -1.27..1.28 deviations


def test_squares_cover_the_image_side_by_side_and_the_empty_are_left_out() -> None:
    labels = np.zeros((70, 101), np.int32)
    labels[:, :60] = np.kron(np.arange(1, 43).reshape(7, 6), np.ones((10, 10), int))
    found = dict(squares("name", labels, 30))
    assert set(found) == {"name-0-0", "name-0-30", "name-30-0", "name-30-30"}
    for name, square in found.items():
        row, col = map(int, name.split("-")[1:])
        part = labels[row : row + 30, col : col + 30]
        assert np.array_equal(square == 0, part == 0) and square.max() == len(np.unique(part[part > 0]))
        assert len(np.unique(np.stack([square, part]).reshape(2, -1), axis=1).T) == len(np.unique(part))
    sparse = np.zeros((30, 30), np.int32)
    sparse[0, : MIN_NUCLEI - 1] = np.arange(1, MIN_NUCLEI)
    assert not dict(squares("name", sparse, 30))


def test_a_seed_gives_the_same_set_again() -> None:
    truths = [("a", blob_labels((120, 90), 1, 60)), ("b", blob_labels((60, 60), 2, 40))]
    first, again, other = (simulated(truths, Simulation(), 30, seed) for seed in (1, 1, 2))
    assert [item.name for item in first] == [item.name for item in again]
    assert all(np.array_equal(one.image, two.image) for one, two in zip(first, again, strict=True))
    assert sorted(item.name for item in first) == sorted(item.name for item in other)
    assert [item.name for item in first] != [item.name for item in other]
    by_name = {item.name: item.image for item in other}
    assert not any(np.array_equal(item.image, by_name[item.name]) for item in first)


def test_what_the_command_writes_train_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = tmp_path / "truth"
    truth.mkdir()
    for seed in range(3):
        Image.fromarray(blob_labels((96, 96), seed, 80).astype(np.uint16)).save(truth / f"t{seed}.png")
    out = tmp_path / "set"
    words = ["simulate", "--labels", str(truth), "--out", str(out), "--size", "48", "--count", "9", "--hold-out", "2"]
    assert main(words) == 0
    assert "7 images to train on, 2 to validate on" in capsys.readouterr().out
    dataset = load_dataset(out)
    assert (len(dataset.train), len(dataset.validation), dataset.split) == (7, 2, "split.csv")
    item = dataset.train[0]
    name, row, col = item.name.rsplit("-", 2)
    source = dilated(np.asarray(Image.open(truth / f"{name}.png")), 3)[int(row) :, int(col) :][:48, :48]
    assert np.array_equal(item.labels > 0, source > 0)
    assert main(words) == 1, "what is there is not overwritten"
    assert "is there already" in capsys.readouterr().err


def test_without_label_images_nuclei_are_made_up(tmp_path: Path) -> None:
    assert main(["simulate", "--out", str(tmp_path), "--size", "128", "--count", "6", "--hold-out", "1"]) == 0
    assert all(item.labels.max() >= MIN_NUCLEI for item in load_dataset(tmp_path).train)


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--size", "0"], 2, "--size"),
        (["--dilation", "-1"], 2, "--dilation"),
        (["--count", "4", "--hold-out", "4"], 2, "--hold-out"),
        (["--count", "4", "--hold-out", "0"], 2, "--hold-out"),
        (["--labels", "{}/nowhere"], 1, "nowhere"),
        (["--labels", "{}/truth", "--size", "32"], 1, "--count"),
    ],
)
def test_what_can_not_be_made_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], code: int, message: str
) -> None:
    (tmp_path / "truth").mkdir()
    Image.fromarray(blob_labels((32, 32), 0).astype(np.uint16)).save(tmp_path / "truth" / "a.png")
    words = [word.format(tmp_path) for word in more]
    assert main(["simulate", "--out", str(tmp_path / "set"), *words]) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "set").exists()
