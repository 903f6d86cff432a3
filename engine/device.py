"""Which device computes, and in which arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nuclix.engine.errors import UsageError

if TYPE_CHECKING:
    import torch

PRECISIONS = ("auto", "float32", "bfloat16", "float16")


def choose_device(wanted: str) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` into a device that is there.

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
        raise UsageError(f"unknown device {wanted!r}: use auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"unknown device {wanted!r}: use auto, cpu, cuda or cuda:N")
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
    # Without these instructions bfloat16 on a CPU is emulated, slower than float32.
    features: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    native = features.get("avx512_bf16") or features.get("amx_bf16")
    return torch.bfloat16 if native else torch.float32
