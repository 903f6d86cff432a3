"""Networks of the attention recipe: dilated attention F with its threshold, and the ResNet G that tells magnifications.

Imports torch at its top (its classes are torch's); import it where it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import avg_pool2d, max_pool2d

from nuclix.engine.training.receptive_field import Layer, receptive_radius, same
from nuclix.engine.training.unet import normalise

DILATIONS = (1, 2, 3, 5, 10, 20)  # one residual block each; the figure is not in the text, the published code has these
STAGES = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}  # blocks a stage of a ResNet by its layers (He, 2016)
HEAD_DEVIATION = 0.1  # of the first weights of a: r a then spans a few units, so that the sigmoid passes gradients on
DARK_WEIGHT = 0.6  # of the darkness in the first confidence map; as batch norm makes it, r a has a deviation of about 2
RED = 0
BACKGROUND, RAMP = (
    0.2,
    0.1,
)  # darkness (white is 0, black 2) of background, and of the ramp to none: 230 to 217
TAU_MOMENTUM = 0.1  # of the running threshold, as of a batch norm; the published code's value


@dataclass(frozen=True, slots=True)
class Sparsity:
    """The sigmoid of section 3: sigma(x) = 1 / (1 + exp(-r (x - tau))).

    Attributes
    ----------
    eta : float
        Percentile of the confidence map whose mean over the batch is tau (eq. 1); None leaves tau at 0.
    compression : float
        r.
    tau_gradient : bool
        Let gradients flow through tau. The published code does not.
    """

    eta: float | None = 93.0
    compression: float = 20.0
    tau_gradient: bool = False


class Residual(nn.Module):
    """Two 3x3 convolutions with batch norm around a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        last = nn.BatchNorm2d(outputs)
        nn.init.zeros_(last.weight)  # the block begins as its shortcut
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, dilation, dilation, bias=False),
            last,
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return relu(body + shortcut)."""
        return torch.relu(self.body(x) + self.shortcut(x))


class Attention(nn.Module):
    """F with tau: (N, 3, H, W) normalised to (N, 1, H, W), r (a - tau), whose logistic function is the attention A.

    While it trains, tau is the batch's (eq. 1) and its running mean is kept, as a batch norm keeps its statistics; in
    evaluation mode tau is that mean, so that an image's attention depends on no other image and on no patch's edge.

    Parameters
    ----------
    n_feat : int
        Features of every layer.
    stem : int
        1: full resolution, as in the paper. 2: a stride-2 convolution before and bilinear enlargement after, at a
        quarter of the cost; dilations are halved (rounded up), so that about as much is seen.
    sparsity : Sparsity
        The sigmoid.
    """

    def __init__(self, n_feat: int, stem: int, sparsity: Sparsity) -> None:
        super().__init__()
        kernel, padding = (3, 1) if stem == 1 else (4, 1)
        self.body = nn.Sequential(
            nn.Conv2d(3, n_feat, kernel, stem, padding, bias=False),
            nn.BatchNorm2d(n_feat),
            nn.ReLU(inplace=True),
            *(Residual(n_feat, n_feat, dilation=dilation) for dilation in dilations(stem)),
        )
        self.head = nn.Conv2d(n_feat, 1, 1)
        self.enlarge: nn.Module = nn.Upsample(scale_factor=2, mode="bilinear") if stem > 1 else nn.Identity()
        self.sparsity = sparsity
        self.register_buffer("tau", torch.zeros(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.tau: torch.Tensor
        self.seen: torch.Tensor

    def begin_dark(self) -> None:
        """Let the confidence map begin as darkness in red light, which haematoxylin absorbs and eosin does not.

        The first feature is made to be minus the red channel; residual blocks begin as their shortcuts and hand it on.
        """
        stem: Any = self.body[0]
        with torch.no_grad():
            stem.weight[0] = 0.0
            stem.weight[0, RED] = -1.0
            self.head.weight[0, 0] = DARK_WEIGHT

    def confidence(self, image: torch.Tensor) -> torch.Tensor:
        """Return the confidence map a = F(I), float32: the percentile needs more digits than half precision has."""
        features = self.body(image)
        with torch.autocast(image.device.type, enabled=False):
            confidence: torch.Tensor = self.enlarge(self.head(features.float()))
        return confidence

    def threshold(self, confidence: torch.Tensor) -> torch.Tensor:
        """Return tau of a batch of confidence maps, eq. 1, and follow it.

        It is a constant to the gradient, as in the published code, unless `Sparsity.tau_gradient` is set.

        The text calls a^(eta) "the (eta/100 HW)-th largest value" and says that 7 % of the pixels lie above; only the
        latter is the 93rd percentile, which is what is taken.
        """
        self.seen += 1
        if self.sparsity.eta is None:
            return torch.zeros((), device=confidence.device)
        flat = confidence.flatten(1)
        rank = max(1, round(self.sparsity.eta / 100 * flat.shape[1]))
        tau = flat.kthvalue(rank, dim=1).values.mean()
        with torch.no_grad():
            self.tau.lerp_(tau.detach(), 1.0 if int(self.seen) == 1 else TAU_MOMENTUM)
        return tau if self.sparsity.tau_gradient else tau.detach()

    def biased(self, confidence: torch.Tensor, tau: torch.Tensor) -> torch.Tensor:
        """Return r (a - tau); without sparsity a itself (section 3.3, M_-sparse)."""
        if self.sparsity.eta is None:
            return confidence
        return self.sparsity.compression * (confidence - tau)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logit of the attention of a batch of normalised images."""
        confidence = self.confidence(image)
        return self.biased(confidence, self.threshold(confidence) if self.training else self.tau)


class Exportable(nn.Module):
    """F as the model file holds it: RGB 0..255 in, attention 0..1 out, none on background.

    White is 0 in the normalised image, so J = A * I is nothing there whatever A is: the loss leaves the attention to
    background open, and no tile of tissue teaches it. So it is set to nothing, as it is in J.

    Parameters
    ----------
    attention : torch.nn.Module
        (N, 3, H, W) normalised to the attention's logit (N, 1, H, W).
    """

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return (N, 1, H, W) float32 of (N, 3, H, W) RGB, 0..255, uint8 or floating point."""
        normalised = normalise(image)
        darkness = -avg_pool2d(normalised.mean(1, keepdim=True), 3, 1, 1, count_include_pad=False)
        seen = ((darkness - BACKGROUND) / RAMP).clamp(0.0, 1.0)
        attended: torch.Tensor = torch.sigmoid(self.attention(normalised).float()) * seen
        return attended


def dilations(stem: int) -> tuple[int, ...]:
    """Return the dilation of every residual block, in pixels of the grid behind the stem."""
    return tuple(-(-dilation // stem) for dilation in DILATIONS)


def radius(stem: int) -> int:
    """Return how far from an output pixel an input pixel can matter: every block has two dilated convolutions."""
    layers = [layer for dilation in dilations(stem) for layer in (same(3, dilation), same(3, dilation))]
    if stem == 1:
        return receptive_radius([same(3), *layers], 1)
    return receptive_radius([Layer(4, 2, 1), *layers, Layer(4, 2, 1, up=True)], stem)  # the last: bilinear enlargement


class ScaleClassifier(nn.Module):
    """G: a ResNet of basic blocks, (N, 3, H, W) to (N, classes) scores (section 3; ResNet-34 of He et al., 2016).

    Parameters
    ----------
    width : int
        Features of the first stage; 64 in a ResNet-34.
    depth : int
        Layers: 10, 18 or 34.
    classes : int
        Magnifications.
    """

    def __init__(self, width: int, depth: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        blocks: list[nn.Module] = []
        inputs = width
        for stage, count in enumerate(STAGES[depth]):
            outputs = width * 2**stage
            for index in range(count):
                blocks.append(Residual(inputs, outputs, 2 if stage > 0 and index == 0 else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, classes)

    def forward(self, attended: torch.Tensor) -> torch.Tensor:
        """Return the scores of a batch of attended images J = A * I."""
        x = self.blocks(max_pool2d(self.stem(attended), 3, 2, 1))
        scores: torch.Tensor = self.head(x.mean((2, 3)))
        return scores


class SelfSupervised(nn.Module):
    """F and G together: what is trained. Called, it is F alone, which is what is exported.

    Parameters
    ----------
    attention : Attention
        F.
    classifier : ScaleClassifier
        G.
    dark : bool
        Whether F begins by attending to what is dark in red light (see `Attention.begin_dark`).
    """

    def __init__(self, attention: Attention, classifier: ScaleClassifier, dark: bool = True) -> None:
        super().__init__()
        self.attention = attention
        self.classifier = classifier
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(attention.head.weight, 0.0, HEAD_DEVIATION)
        if dark:
            attention.begin_dark()

    @property
    def encoder(self) -> nn.Module:
        """What may begin with weights from ImageNet: the convolutions of G, a ResNet (section 3.2)."""
        return nn.ModuleDict({"stem": self.classifier.stem, "blocks": self.classifier.blocks})

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logit of the attention (N, 1, H, W) of a batch of normalised images."""
        logit: torch.Tensor = self.attention(image)
        return logit
