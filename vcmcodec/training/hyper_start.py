"""A second start for a hyper-latent that training has left at zero.

Without symbols other than zero the networks behind it get no gradient, so it never comes back by
itself, though the first pass of the first slice has nothing else to go by.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vcmcodec.nn.latent_codec import HYPER_INPUT, LatentCodec
from vcmcodec.training.coder import HyperPrior

DEVIATION = 0.8  # of each channel: most symbols are -1, 0 or 1
PRIOR_SCALE = DEVIATION * math.sqrt(3) / math.pi  # of the logistic with that deviation


@torch.no_grad()
def wake_hyper(codec: LatentCodec, prior: HyperPrior, steps: Tensor) -> None:
    """Let the hyper-latent say how busy a cell is; predictions stay as they are at first.

    It becomes the principal components of random rectified features of the base.  What is
    predicted from it starts at what it was for zeros, with weights of zero, which learn at once.

    Args:
        steps: (cells, base channels), latents in steps, of many rate levels.
    """
    hyper, model = codec.hyper_analysis, codec.entropy
    torch.nn.init.normal_(hyper.first.weight, std=hyper.first.in_features**-0.5)
    torch.nn.init.normal_(hyper.first.bias, std=0.3)
    hidden = F.relu(hyper.first(steps * HYPER_INPUT)).double()
    _, vectors = torch.linalg.eigh(torch.cov(hidden.T))
    basis = vectors.flip(1)[:, : hyper.last.out_features].T
    said = hidden @ basis.T
    basis = basis * (DEVIATION / said.std(0).clamp(min=1e-6))[:, None]
    hyper.last.weight.copy_(basis.float())
    hyper.last.bias.copy_(-(basis @ hidden.mean(0)).float())
    prior.mean.zero_()
    prior.scale.fill_(math.log(math.expm1(PRIOR_SCALE - 0.05)))
    gathered = model.hyper_gather(steps.new_zeros(1, model.hyper_gather.weight.shape[1]))
    before = model.hyper_features(gathered)[0]
    model.hyper_features.weight.zero_()
    model.hyper_features.bias.copy_(before)
