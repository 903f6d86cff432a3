from typing import Any

import numpy as np
from numpy.typing import NDArray

def statistics(labels: NDArray[Any], pixels: NDArray[np.uint8], table: NDArray[np.float64]) -> NDArray[np.float64]: ...
