from typing import Any

import numpy as np
from numpy.typing import NDArray

def sums(labels: NDArray[Any], values: NDArray[Any]) -> NDArray[np.float64]: ...
def stain_statistics(
    labels: NDArray[Any], pixels: NDArray[np.uint8], table: NDArray[np.float64]
) -> NDArray[np.float64]: ...
