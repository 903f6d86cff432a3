"""Two threads on two blocks beside one thread: kernels hold no lock while they work. Wants two idle cores."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from maps import predicted, touching
from nuclix.ext.components import connected_components
from nuclix.ext.distance import chessboard_distance, instance_distance
from nuclix.ext.dynamics import dynamics_watershed
from nuclix.ext.maxima import h_maxima
from nuclix.ext.watershed import watershed

SIZE = 2000
BLOCKS = 8  # per round, shared among the threads
LEVEL = np.float32(0.5)


def blocks():
    image = predicted(SIZE)[0]
    return image, image > LEVEL


def on_image(kernel):
    image, _ = blocks()
    return lambda: kernel(image, 0.5, 0.5)


def on_mask(kernel):
    _, mask = blocks()
    return lambda: kernel(mask)


def on_labels():
    labels = touching(SIZE)
    return lambda: instance_distance(labels)


def on_markers():
    image, mask = blocks()
    lows, markers = -image, h_maxima(image, 0.5, 0.5)
    return lambda: watershed(lows, markers, mask)


KERNELS = {
    "chessboard_distance": lambda: on_mask(chessboard_distance),
    "instance_distance": on_labels,
    "connected_components": lambda: on_mask(connected_components),
    "h_maxima": lambda: on_image(h_maxima),
    "watershed": on_markers,
    "dynamics_watershed": lambda: on_image(dynamics_watershed),
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kernel", KERNELS)
def test_threads(benchmark, kernel, threads):
    work = KERNELS[kernel]()
    benchmark.group = f"{kernel}, {BLOCKS} blocks of {SIZE}x{SIZE}"
    benchmark.extra_info.update(kernel=kernel, threads=threads)
    with ThreadPoolExecutor(threads) as pool:
        benchmark.pedantic(
            lambda: [future.result() for future in [pool.submit(work) for _ in range(BLOCKS)]],
            rounds=5,
            warmup_rounds=1,
        )
