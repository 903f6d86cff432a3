"""Which device computes, and in which arithmetic."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING

from nuclix.engine.errors import UsageError
from nuclix.engine.run_config import PRECISIONS

if TYPE_CHECKING:
    import torch

_FEWEST_THREADS = 2


def choose_device(wanted: str) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps`` (Apple GPU) into a device that is there.

    Raises
    ------
    UsageError
        If the name is unknown, or names a GPU that this machine or this PyTorch does not have.
    """
    import torch

    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise UsageError(f"unknown device {wanted!r}: use auto, cpu, cuda, cuda:N or mps") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"unknown device {wanted!r}: use auto, cpu, cuda, cuda:N or mps")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError(f"no device 'mps': PyTorch {torch.__version__} finds no Apple GPU here; use cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise UsageError(
            f"no device {wanted!r}: PyTorch {torch.__version__} finds {found} CUDA device(s) here; use cpu"
        )
    return device


def choose_precision(wanted: str, device: torch.device) -> torch.dtype:
    """Return the arithmetic for the network: half precision where the device has it in hardware.

    Raises
    ------
    UsageError
        If the name is unknown.
    """
    import torch

    if wanted not in PRECISIONS:
        raise UsageError(f"unknown precision {wanted!r}: use one of {', '.join(PRECISIONS)}")
    if wanted != "auto":
        chosen: torch.dtype = getattr(torch, wanted)
        return chosen
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "mps":  # half precision there has not been compared with the CPU
        return torch.float32
    # Without these instructions bfloat16 on a CPU is emulated, slower than float32.
    features: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    native = features.get("avx512_bf16") or features.get("amx_bf16")
    return torch.bfloat16 if native else torch.float32


def hardware_name(device: torch.device) -> str:
    """Return the model of a GPU or CPU: results of two models may differ in the last bits."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"Apple GPU ({platform.machine()})"
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def use_threads(count: int) -> None:
    """Let PyTorch compute with `count` threads of the CPU, but with two at least.

    On a single thread PyTorch takes other kernels for 1 x 1 convolutions, whose float32 results differ in the last
    bits, so results would depend on how many processes share a machine.
    """
    import torch

    torch.set_num_threads(max(_FEWEST_THREADS, count))


def share_threads(shares: int) -> None:
    """Let PyTorch compute with its share of the CPU's threads, as one of so many processes."""
    import torch

    use_threads(torch.get_num_threads() // shares)
