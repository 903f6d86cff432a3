from typing import Any

from numpy.typing import NDArray

def expand(labels: NDArray[Any], distance: float, out: NDArray[Any]) -> None: ...
