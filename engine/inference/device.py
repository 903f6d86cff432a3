"""Which device computes, and with which arithmetic."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from nuclix.engine.cpus import usable_cpus
from nuclix.engine.errors import DeviceError, UsageError
from nuclix.engine.run_config import INT8, PRECISIONS, TF32

if TYPE_CHECKING:
    import torch

_FEWEST_THREADS = 2
_THREADS_VARIABLE = "OMP_NUM_THREADS"  # as PyTorch and other libraries read it
# What a driver for GPUs of NVIDIA or AMD, or that of Windows under Linux, puts there.
_GPU_FILES = ("nvidia*", "kfd", "dxg")
_DEV = Path("/dev")
_CPU_FACTS = Path("/proc/cpuinfo")
_BFLOAT16 = {"avx512_bf16", "amx_bf16"}


@dataclass(frozen=True, slots=True)
class CpuDevice:
    """The CPU, where PyTorch is not needed to name it."""

    type: str = "cpu"

    def __str__(self) -> str:
        return self.type


def gpu_may_exist() -> bool:
    """Return whether a driver for a GPU that PyTorch calls CUDA is there; where none is, PyTorch need not be asked."""
    return any(next(_DEV.glob(name), None) is not None for name in _GPU_FILES)


def is_cpu(wanted: str) -> bool:
    """Return whether ``--device`` means the CPU; PyTorch is imported only where there may be a GPU."""
    if wanted != "auto":
        return wanted == "cpu"
    if not gpu_may_exist():
        return True
    import torch

    return not torch.cuda.is_available()


def cpu_has_bfloat16() -> bool:
    """Return whether the CPU computes in bfloat16; without these instructions it is slower than float32."""
    return any(_BFLOAT16 & set(line.split()) for line in _cpu_facts("flags"))


def _cpu_facts(name: str) -> list[str]:
    """Return what the system says of each CPU under a name."""
    try:
        lines = _CPU_FACTS.read_text().splitlines()
    except OSError:
        return []
    return [line.partition(":")[2].strip() for line in lines if line.startswith(name)]


def choose_device(wanted: str) -> torch.device:
    """Return the device for ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps`` (Apple GPU); a CUDA device has a number.

    Raises
    ------
    UsageError
        If the name is unknown, or names a GPU that this machine or this PyTorch does not have.
    """
    import torch

    if wanted == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
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
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def prepare_device(device: torch.device, *, tf32: bool = False) -> None:
    """Make a CUDA device this process's only one, and its results the same on every run; does nothing for a CPU.

    Convolutions use deterministic algorithms, chosen by rule and not by trial; float32 products are not rounded to
    TF32 unless asked for; TorchScript's fuser is off, whose kernels replace the plain ones after a few calls and differ
    in the last bits.

    Parameters
    ----------
    device : torch.device
        From `choose_device`.
    tf32 : bool
        Allow TF32.

    Raises
    ------
    DeviceError
        If the device can't be used: another process has it, or its driver fails.
    """
    import torch

    if device.type != "cuda":
        return
    try:
        torch.cuda.set_device(device)  # else the runtime takes memory on device 0 as well
        torch.cuda.init()
    except RuntimeError as error:
        raise DeviceError(f"{device} can't be used: {str(error).splitlines()[0]}") from error
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch._C._jit_set_texpr_fuser_enabled(False)


def choose_precision(wanted: str, device: torch.device) -> torch.dtype:
    """Return the number format for the network: half precision where the device has it in hardware.

    Raises
    ------
    UsageError
        If the name is unknown, or the device does not have it.
    """
    import torch

    if wanted not in PRECISIONS:
        raise UsageError(f"unknown precision {wanted!r}: use one of {', '.join(PRECISIONS)}")
    if wanted == TF32:
        if device.type != "cuda":
            raise UsageError(f"precision {TF32} is of CUDA devices; {device} computes in float32")
        return torch.float32
    if wanted == INT8:
        raise UsageError(f"precision {INT8} needs --device cpu, OpenVINO and a model file with an int8 network")
    if wanted != "auto":
        chosen: torch.dtype = getattr(torch, wanted)
        return chosen
    if device.type == "cuda":
        with torch.cuda.device(device):  # the question is answered for the current device
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    if device.type == "mps":  # half precision there has not been compared with the CPU
        return torch.float32
    return torch.bfloat16 if cpu_has_bfloat16() else torch.float32


def hardware_name(device: torch.device | CpuDevice) -> str:
    """Return the model of a GPU or CPU: results of two models may differ in the last bits."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(cast("torch.device", device))
    if device.type == "mps":
        return f"Apple GPU ({platform.machine()})"
    return cpu_name()


def cpu_name() -> str:
    """Return the model of the CPU, or what is known of it."""
    names = _cpu_facts("model name")
    return names[0] if names else platform.processor() or platform.machine()


def use_threads(count: int) -> None:
    """Let PyTorch compute with `count` threads of the CPU, but at least two.

    On a single thread PyTorch takes other kernels for 1 x 1 convolutions, whose float32 results differ in the last
    bits, so results would depend on how many processes share a machine.
    """
    import torch

    torch.set_num_threads(max(_FEWEST_THREADS, count))


def thread_share(shares: int) -> int:
    """Return how many threads the network gets in one of so many processes: its share of the CPUs, at least one.

    CPUs are those of the affinity and of the quotas of control groups; ``OMP_NUM_THREADS`` is an upper bound.
    """
    bound = os.environ.get(_THREADS_VARIABLE, "")
    cpus = min(usable_cpus(), int(bound)) if bound.isdecimal() else usable_cpus()
    return max(1, cpus // shares)
