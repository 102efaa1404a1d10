"""The small convolutional digit classifier whose features score the embedded default."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ditbench.methods.training.data.digits import Digits
from ditbench.methods.training.loop import LossOf
from ditbench.methods.training.recipe import Recipe


class DigitClassifier(nn.Module):
    """images (B, 1, 8, 8) in [-1, 1] -> logits (B, 10); ``features`` gives the (B, 64) layer before them.

    Trained by ``recipes/digit-classifier.yaml`` on four fifths of the data. Size and accuracy are in the
    zoo's manifest.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.hidden = nn.Linear(64 * 4 * 4, 64)
        self.head = nn.Linear(64, 10)

    def features(self, images: Tensor) -> Tensor:
        x = F.gelu(self.conv1(images))
        x = F.avg_pool2d(F.gelu(self.conv2(x)), 2)
        return torch.tanh(self.hidden(x.flatten(1)))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits


def classification(data: Digits, recipe: Recipe) -> LossOf:
    """Cross-entropy on images shifted by up to a pixel with a little noise, so that features are smooth."""

    def loss(model: nn.Module, generator: torch.Generator, step: int) -> Tensor:
        rows = torch.randint(len(data.labels), (recipe.batch,), generator=generator)
        padded = F.pad(data.images[rows], (1, 1, 1, 1), value=-1.0)
        down, right = torch.randint(3, (2, recipe.batch), generator=generator)
        windows = padded.unfold(2, 8, 1).unfold(3, 8, 1)
        images = windows[torch.arange(recipe.batch), :, down, right]
        images = images + 0.1 * torch.randn(images.shape, generator=generator)
        return F.cross_entropy(model(images), data.labels[rows], label_smoothing=0.05)

    return loss
