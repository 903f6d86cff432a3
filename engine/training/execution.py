"""On which device and in which arithmetic a training computes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nuclix.engine.inference.device import choose_device, choose_precision

if TYPE_CHECKING:
    import torch

    from nuclix.engine.training.validation import Network


@dataclass(frozen=True, slots=True)
class Execution:
    """A device and the type that convolutions compute in there.

    Attributes
    ----------
    device : torch.device
        cpu or cuda.
    dtype : torch.dtype
        float32, or the type of autocast.
    """

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def of(cls, device: str, precision: str) -> Execution:
        """Choose from what the user said; raise `UsageError` where that is unknown or not there."""
        where = choose_device(device)
        return cls(where, choose_precision(precision, where))

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which a forward pass runs."""
        import torch

        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def scaler(self) -> torch.amp.GradScaler:
        """Return the loss scaling, which does something in float16 alone."""
        import torch

        return torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)

    def place(self, batch: torch.Tensor) -> torch.Tensor:
        """Move a batch of images to the device, channels last."""
        import torch

        return batch.to(self.device, memory_format=torch.channels_last, non_blocking=True)

    def place_module(self, module: torch.nn.Module) -> torch.nn.Module:
        """Move a network's weights to the device, channels last."""
        import torch

        moved: torch.nn.Module = module.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return moved

    def inference(self, module: torch.nn.Module) -> Network:
        """Return a callable that runs `module` in evaluation mode, without gradients, here."""
        import torch

        module = module.to(self.device).eval()

        def run(batch: torch.Tensor) -> torch.Tensor:
            with torch.inference_mode(), self.autocast():
                outputs: torch.Tensor = module(self.place(batch))
            return outputs.float()

        return run
