"""What the attention recipe minimises: eq. 2 to 5, and the Dice score by which an epoch is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from nuclix.plugins.recipes._attention_network import SelfSupervised

ROWS, COLS = 2, 3
TINY = 1e-30  # in float32, next to counts of pixels: nothing
# Mean colour of ImageNet (red, green, blue) that the published code subtracts: what it shows G where A is 0.
MEAN_GREY = (0.485, 0.456, 0.406)
WHITE_LEVEL, HALF_RANGE = 1.0, 0.5  # of images in 0..1, as `nuclix.engine.training.unet.normalise` has them in -2..0
TRANSFORMS = 6  # horizontal and vertical flip, transpose, rotations by 90, 180 and 270 degrees


def transformed(images: torch.Tensor, which: int) -> torch.Tensor:
    """Apply transform `which` of the set T (section 3.2) to (N, C, S, S) images.

    Parameters
    ----------
    images : torch.Tensor
        Square.
    which : int
        0 horizontal flip, 1 vertical flip, 2 transpose; 3, 4, 5 rotations by 90, 180, 270 degrees.
    """
    if which < 2:
        return images.flip(COLS if which == 0 else ROWS)
    if which == 2:
        return images.transpose(ROWS, COLS)
    return images.rot90(which - 2, (ROWS, COLS))


def smoothness(attention: torch.Tensor) -> torch.Tensor:
    """Return L_smooth, eq. 3, mean over the batch: absolute differences of neighbours over (H - 1)(W - 1)."""
    down = (attention[:, :, 1:] - attention[:, :, :-1]).abs().sum()
    right = (attention[:, :, :, 1:] - attention[:, :, :, :-1]).abs().sum()
    count, _, height, width = attention.shape
    return (down + right) / (count * (height - 1) * (width - 1))


def dice_loss(logit: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
    """Return 1 - Dice of the attention map and the truth (section 3.4), both (N, 1, H, W); 0 where both are empty.

    The attention is taken as it is, not thresholded; with r = 20 that makes little difference.
    """
    attention = logit.sigmoid()
    both = attention.sum() + foreground.sum()
    return 1 - (2 * (attention * foreground).sum() + TINY) / (both + TINY)


def masked_level(images: torch.Tensor) -> torch.Tensor:
    """Return (1, 3, 1, 1): the normalised mean grey that stands for pixels which are not attended to."""
    grey = images.new_tensor(MEAN_GREY)
    return ((grey - WHITE_LEVEL) / HALF_RANGE)[None, :, None, None]


@dataclass(frozen=True, slots=True)
class Objective:
    """L_total = L_scale + L_smooth + L_equiv, eq. 5, or without one of its parts.

    Attributes
    ----------
    smooth, equivariant : bool
        Whether those parts count.
    lead : int
        The first batches, in which the classifier learns from an attention that does not.
    grey : bool
        Show G mean grey where the attention is 0, as the published code does; False shows it white.
    """

    smooth: bool = True
    equivariant: bool = True
    lead: int = 0
    grey: bool = True

    def __call__(self, network: Any, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss of a batch.

        Parameters
        ----------
        network : SelfSupervised
            F and G.
        images : (N, 3, S, S) torch.Tensor
            Normalised; white is 0.
        targets : (N, 2, 1, 1) torch.Tensor
            Index of the tile's magnification, and of the batch's transform t.
        """
        import torch
        from torch.nn.functional import cross_entropy, mse_loss

        both: SelfSupervised = network
        part = both.attention
        confidence = part.confidence(images)
        tau = part.threshold(confidence)
        attention = torch.sigmoid(part.biased(confidence, tau))
        leading = int(part.seen) <= self.lead
        if leading:
            attention = attention.detach()
        scores = both.classifier(attention * (images - masked_level(images) if self.grey else images))
        loss = cross_entropy(scores.float(), targets[:, 0, 0, 0].long())  # eq. 2
        if self.smooth and not leading:
            loss = loss + smoothness(attention)
        if self.equivariant and not leading:
            which = int(targets[0, 1, 0, 0])
            with torch.no_grad():  # eq. 4 does not say which side learns; here the transformed image is the example
                turned = torch.sigmoid(part.biased(part.confidence(transformed(images, which)), tau))
            loss = loss + mse_loss(transformed(attention, which), turned)
        return loss
