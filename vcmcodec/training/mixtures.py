"""Views that are no pictures: mixtures of two, in changed colours, of which only a teacher knows.

A head that is taught on few pictures learns them by heart.  A teacher answers for whatever it is
shown, so a student may follow it where no label would make sense, and learns the function, not the
pictures (Beyer et al., "Knowledge distillation: a good teacher is patient and consistent", CVPR
2022).
"""

from __future__ import annotations

from dataclasses import replace

import torch

from vcmcodec.training.vision_batches import Batch

GAMMA, GAIN = 0.3, 0.12  # deviations: of the logarithm of a view's gamma, of its channels' gains
PURE = 0.85  # share of the stronger view from which its mask still holds
UNKNOWN = 255


def stirred(batch: Batch, share: float, seed: int) -> Batch:
    """Other colours for every view, and for a share of them the next view, mirrored, laid over it.

    Args:
        batch: its boxes are not changed, and hold for what is not mixed alone.
        share: of the views that are mixed; 0 leaves the batch as it is.
        seed: decides everything.

    Returns:
        A batch whose masks are unknown where views are mixed.
    """
    if share == 0:
        return batch
    random = torch.Generator().manual_seed(seed)
    count, device = len(batch.rgb), batch.rgb.device

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(count, *shape, 1, 1, generator=random).to(device)

    gamma, gain = torch.exp(GAMMA * drawn(1)), 1 + GAIN * drawn(3)
    rgb = (batch.rgb.clamp(1e-3, 1) ** gamma * gain).clamp(0, 1)
    mixed = (torch.rand(count, generator=random) < share).to(device)
    weight = (0.5 + 0.5 * torch.rand(count, generator=random)).to(device)
    over, kept = rgb.roll(1, 0).flip(3), weight.view(-1, 1, 1, 1)
    rgb = torch.where(mixed.view(-1, 1, 1, 1), kept * rgb + (1 - kept) * over, rgb)
    mask = batch.mask.clone()
    mask[mixed & (weight < PURE)] = UNKNOWN
    either = torch.maximum(batch.valid, batch.valid.roll(1, 0).flip(2))
    valid = torch.where(mixed.view(-1, 1, 1), either, batch.valid)
    return replace(batch, rgb=rgb.contiguous(), mask=mask, valid=valid)
