import numpy as np
from numpy.typing import NDArray

def features(
    columns: tuple[NDArray[np.generic], ...],
    transform: NDArray[np.float64],
    name_space: bytes,
    styles: tuple[tuple[bytes, ...], tuple[bytes, ...]],
    begin: int,
    end: int,
) -> bytes: ...
