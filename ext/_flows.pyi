import numpy as np
from numpy.typing import NDArray

def follow_flows(
    down: NDArray[np.float32],
    right: NDArray[np.float32],
    clumps: NDArray[np.int32],
    boxes: NDArray[np.int32],
    steps: int,
    scale: float,
    seeds: int,
    basin: int,
    out: NDArray[np.int32],
) -> int: ...
def flow_errors(
    labels: NDArray[np.int32],
    boxes: NDArray[np.int32],
    down: NDArray[np.float32],
    right: NDArray[np.float32],
    scale: float,
    errors: NDArray[np.float64],
) -> None: ...
