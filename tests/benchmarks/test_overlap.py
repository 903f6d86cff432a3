"""The overlap table and AJI compared with the code in common use: full masks per object, and SciPy's sparse table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nuclix.engine.evaluation.scores import score
from nuclix.ext.overlap import OverlapTable, aji, overlap_table

SIZES = {"1000": (1000, 950), "2048": (2048, 4000)}


@pytest.fixture(params=SIZES)
def images(request: pytest.FixtureRequest) -> tuple[str, np.ndarray, np.ndarray]:
    """Return random ellipses of 16 to 26 px, and the same a few pixels off with every seventh lost."""
    extent, nuclei = SIZES[request.param]
    rng = np.random.default_rng(0)
    truth = np.zeros((extent, extent), np.int32)
    rows, cols = np.mgrid[-16:17, -16:17]
    for label in range(1, nuclei + 1):
        row, col = rng.integers(16, extent - 17, 2)
        long, short = rng.uniform(8, 13, 2)
        angle = rng.uniform(0, np.pi)
        along, across = rows * np.cos(angle) + cols * np.sin(angle), cols * np.cos(angle) - rows * np.sin(angle)
        window = truth[row - 16 : row + 17, col - 16 : col + 17]
        window[((along / long) ** 2 + (across / short) ** 2 <= 1) & (window == 0)] = label
    prediction = np.roll(truth, (2, 3), (0, 1))
    prediction[prediction % 7 == 0] = 0
    return request.param, truth, prediction


def scipy_table(truth: np.ndarray, prediction: np.ndarray) -> Any:
    from scipy.sparse import coo_matrix

    return coo_matrix((np.ones(truth.size, np.int64), (truth.ravel(), prediction.ravel()))).tocsr()


def usual_aji(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Compare a full-size mask of every truth with those of the predictions that it meets, as is usual."""
    used = set()
    numerator = denominator = 0
    for label in np.unique(truth[truth > 0]):
        mask = truth == label
        best, best_iou, inter, union = 0, 0.0, 0, int(mask.sum())
        for other in np.unique(prediction[mask & (prediction > 0)]):
            candidate = prediction == other
            both, either = int((mask & candidate).sum()), int((mask | candidate).sum())
            if both / either > best_iou:
                best, best_iou, inter, union = other, both / either, both, either
        used.add(best)
        numerator += inter
        denominator += union
    denominator += sum(
        int((prediction == label).sum()) for label in np.unique(prediction) if label and label not in used
    )
    return numerator / denominator


def our_aji(truth: np.ndarray, prediction: np.ndarray) -> float:
    return aji(overlap_table(truth, prediction))


@pytest.mark.parametrize("method", [overlap_table, scipy_table])
def test_table(benchmark: Any, images: tuple[str, np.ndarray, np.ndarray], method: Any) -> None:
    size, truth, prediction = images
    benchmark.group = f"overlap table {size}"
    found = benchmark(method, truth, prediction)
    theirs = scipy_table(truth, prediction)[1:, 1:].tocoo()
    ours = found if isinstance(found, OverlapTable) else overlap_table(truth, prediction)
    assert sorted(theirs.data) == sorted(ours.intersection)


@pytest.mark.parametrize("method", [our_aji, usual_aji])
def test_aji(benchmark: Any, images: tuple[str, np.ndarray, np.ndarray], method: Any) -> None:
    size, truth, prediction = images
    benchmark.group = f"AJI {size}"
    if method is usual_aji:
        found = benchmark.pedantic(method, (truth, prediction), rounds=1)
    else:
        found = benchmark(method, truth, prediction)
    assert found == pytest.approx(our_aji(truth, prediction))


def test_all_scores(benchmark: Any, images: tuple[str, np.ndarray, np.ndarray]) -> None:
    size, truth, prediction = images
    benchmark.group = f"every score {size}"
    benchmark(score, truth, prediction)
