"""A hyper-latent that training left at zero gets a second start."""

from __future__ import annotations

import numpy as np
import torch

from vcmcodec.nn.latent_codec import cell_grid
from vcmcodec.profiles import scene
from vcmcodec.training.coder import HyperPrior
from vcmcodec.training.hyper_start import DEVIATION, wake_hyper


def test_it_speaks_and_predictions_stay_as_they_were() -> None:
    torch.manual_seed(1)
    codec = scene.build()
    codec.entropy.hyper_features.bias.data.uniform_(-20, 60)
    prior = HyperPrior(codec.latent.hyper)
    grid = cell_grid(np.zeros((4, 5), np.int64), codec.latent.phases)
    silent = torch.zeros(20, codec.latent.hyper)
    loud = torch.randint(-3, 4, silent.shape).float()
    before = codec.entropy.hyper_context(silent, grid)
    scales = torch.rand(400, 1) * 4  # busy and quiet cells
    steps = torch.randn(400, codec.latent.base_channels) * scales
    wake_hyper(codec, prior, steps)
    assert torch.equal(codec.entropy.hyper_context(loud, grid), before)
    said = codec.hyper_analysis(steps).detach()
    torch.testing.assert_close(said.std(0), torch.full((codec.latent.hyper,), DEVIATION))
    together = np.corrcoef(torch.cat((scales, said), 1).numpy().T)[0, 1:]
    assert np.abs(together).max() > 0.4
    assert (
        0.9 < float(prior.bits(said.round()).mean().detach()) < 2.5
    )  # entropy of such symbols is 1.7


def test_its_bits_count_for_less_while_it_wakes() -> None:
    prior, values = HyperPrior(3), torch.ones(5, 3)
    whole = prior.bits(values)
    prior.price = 0.25
    torch.testing.assert_close(prior.bits(values), whole * 0.25)


def test_the_networks_behind_it_learn_at_once() -> None:
    codec = scene.build()
    wake_hyper(codec, HyperPrior(codec.latent.hyper), torch.randn(200, codec.latent.base_channels))
    grid = cell_grid(np.zeros((4, 5), np.int64), codec.latent.phases)
    codec.entropy.hyper_features.bias.data.fill_(5.0)  # inside the range of the activation
    loud = torch.randint(-3, 4, (20, codec.latent.hyper)).float()
    codec.entropy.hyper_context(loud, grid).square().sum().backward()
    gradient = codec.entropy.hyper_features.weight.grad
    assert gradient is not None
    assert gradient.abs().max() > 0
