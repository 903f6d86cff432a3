from typing import Any

from numpy.typing import NDArray

def outlines(labels: NDArray[Any], diagonals: bool = ...) -> tuple[Any, Any, Any, Any, Any, Any, Any]: ...
