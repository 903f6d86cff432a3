"""One way to compile a Numba kernel: without the GIL, kept on disk where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` at its first call, without the GIL; cache the machine code where a folder can be written.

    Parameters
    ----------
    function : callable
        A function that Numba compiles in nopython mode.

    Returns
    -------
    callable
        The compiled function.
    """
    import numba

    try:
        return numba.njit(function, nogil=True, cache=True)
    except RuntimeError:  # Numba's word for "no cache folder": a read-only install without a home
        return numba.njit(function, nogil=True)
