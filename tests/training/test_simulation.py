"""What training simulates is what coding does: the same means, tables and symbols."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from photographs import photograph
from vcmcodec.entropy.rans import RansDecoder, RansEncoder
from vcmcodec.models import load_model
from vcmcodec.nn.gain import Level
from vcmcodec.nn.integer import VALUE_UNIT
from vcmcodec.nn.model_tensors import Model
from vcmcodec.nn.picture_codec import PictureCodec, cell_grid
from vcmcodec.nn.rate_estimate import symbol_bits
from vcmcodec.profiles import scene
from vcmcodec.profiles.coding import DecodingCoder, EncodingCoder, Hand
from vcmcodec.profiles.tiles import Rectangle
from vcmcodec.training.coder import HyperPrior, TrainingCoder
from vcmcodec.training.scene import Draw, code

ROWS, COLUMNS = 5, 7
LABELS = np.zeros((ROWS, COLUMNS), np.int64)
LABELS[1:4, 2:5] = 1
LABELS[4, 6] = 2

Asked = tuple[Tensor, Tensor, Tensor]


class Recording:
    """Mixed into a coder: keeps means, table indexes and answers."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.asked: list[Asked] = []
        self.hypers: list[Tensor] = []

    def hyper(self, channels: int) -> Tensor:
        found: Tensor = super().hyper(channels)  # type: ignore[misc]
        self.hypers.append(found.detach().clone())
        return found

    def values(self, where: slice, rows: Tensor, mean: Tensor, index: Tensor) -> Tensor:
        found: Tensor = super().values(where, rows, mean, index)  # type: ignore[misc]
        self.asked.append((mean.detach().clone(), index.detach().clone(), found.detach().clone()))
        return found


class Training(Recording, TrainingCoder):
    """The training coder, recording; symbols that tables cannot tell are zero, as in coding."""

    def values(self, where: slice, rows: Tensor, mean: Tensor, index: Tensor) -> Tensor:
        kept = self.latent
        self.latent = kept.clone()
        never_coded = index < 1
        part = self.latent[rows, where]
        part[never_coded] = (mean / VALUE_UNIT)[never_coded]
        self.latent[rows, where] = part
        found = super().values(where, rows, mean, index)
        self.latent = kept
        return found


class Encoding(Recording, EncodingCoder):
    """The encoder's coder, recording."""


class Decoding(Recording, DecodingCoder):
    """The decoder's coder, recording."""


def latent(model: Model) -> Tensor:
    """A photograph's, (cells, 320)."""
    rgb = photograph("astronaut", 16 * ROWS, 16 * COLUMNS, 20, 160)
    source = scene.Source(rgb, LABELS, 3, 0)
    return next(iter(scene.analyse(model, source, 3))).latent.clone()


def unheld() -> Model:
    """The installed model, its integers rounded at every use, as in training."""
    from dataclasses import replace

    model = load_model("scene")
    codec = PictureCodec(model.codec.transform, model.codec.latent, model.codec.lmbdas)
    codec.load_state_dict(model.codec.state_dict())
    return replace(model, codec=codec.eval())


def traverse(codec: PictureCodec, base_coder: Any, coder: Any, levels: tuple[int, int]) -> None:
    """Base, refinement, mid and full."""
    grid = cell_grid(LABELS, codec.latent.phases)
    low, high = (Level(level, codec.latent.levels) for level in levels)
    channels = codec.latent.base_channels
    hyper = codec.entropy.hyper_context(base_coder.hyper(codec.latent.hyper), grid)
    values = codec.entropy.code_slices(base_coder, grid, low, hyper, 0, torch.zeros(grid.size, 0))
    values = codec.entropy.code_refinement(
        coder, grid, high, low, hyper, values, codec.gains.log_gain[:, :channels]
    )
    for layer in (1, 2):
        values = codec.entropy.code_slices(coder, grid, high, hyper, layer, values)


LEVELS = [(0, 10000), (1428, 7142), (2857, 4285)]  # trained ones: no interpolation in float32


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("gradients", [False, True])
def test_training_sees_what_coding_sees(levels: tuple[int, int], gradients: bool) -> None:
    installed, training = load_model("scene"), unheld()
    codec, tables = training.codec.requires_grad_(gradients), installed.tables
    channels = codec.latent.base_channels
    dense = latent(installed)
    low, high = (Level(level, codec.latent.levels) for level in levels)
    with torch.inference_mode():
        base_steps = dense[:, :channels] * codec.gains.gain(low, slice(0, channels))
        steps = dense * codec.gains.gain(high, slice(0, codec.latent.channels))
        hyper = codec.hyper_analysis(base_steps)
        base_steps, steps, hyper = base_steps.clone(), steps.clone(), hyper.clone()
    base_steps, steps, hyper = (torch.tensor(x.numpy()) for x in (base_steps, steps, hyper))

    prior = HyperPrior(codec.latent.hyper)
    simulated = (
        Training(base_steps, hyper, prior, noisy=False),
        Training(steps, None, prior, noisy=False),
    )
    traverse(codec, *simulated, levels)

    hand = Hand(LABELS.reshape(-1), 3)
    coded = (Encoding(base_steps, hyper, tables, hand), Encoding(steps, None, tables, hand))
    with torch.inference_mode():
        traverse(installed.codec, *coded, levels)

    runs = [one.finish() for one in coded]
    decoded = tuple(Decoding(run, LABELS.size, tables, Hand(LABELS.reshape(-1), 3)) for run in runs)
    with torch.inference_mode():
        traverse(installed.codec, *decoded, levels)
    for one in decoded:
        one.finish()

    for simulation, encoder, decoder in zip(simulated, coded, decoded, strict=True):
        assert len(encoder.asked) == len(decoder.asked) == len(simulation.asked) > 5
        assert all(map(torch.equal, encoder.hypers, simulation.hypers))
        assert all(map(torch.equal, encoder.hypers, decoder.hypers))
        for a, b, c in zip(simulation.asked, encoder.asked, decoder.asked, strict=True):
            for at_training, at_encoding, at_decoding in zip(a, b, c, strict=True):
                assert torch.equal(at_training, at_encoding)
                assert torch.equal(at_encoding, at_decoding)
        means = torch.cat([mean.flatten() for mean, _, _ in encoder.asked])
        indexes = torch.cat([index.flatten() for _, index, _ in encoder.asked])
        assert len(torch.unique(means)) > 20
        assert len(torch.unique(indexes)) > 10


def rounding_plainly(*arguments: Any, **options: Any) -> EncodingCoder:
    return EncodingCoder(*arguments, **(options | {"price": None}))


def test_the_estimate_of_training_is_near_the_files_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bits that training counts, in its Gaussians, against the bytes that are written.

    Without the weighing of bits against error, which training does not simulate.
    """
    monkeypatch.setattr(scene, "EncodingCoder", rounding_plainly)
    model = unheld()
    rgb = photograph("coffee", 160, 208, 60, 120)
    labels = np.zeros((10, 13), np.int64)
    image = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255
    for level in (2000, 8000):
        with torch.no_grad():
            plan = Draw(level, level, 3, labels)
            prior = HyperPrior(model.codec.latent.hyper)
            outcome = code(model.codec, prior, image, plan, noisy=False)
        source = scene.Source(rgb, labels, 1, 0)
        pieces = scene.analyse(model, source, 3)
        runs = scene.encode(model, source, pieces, scene.Levels(level, level))
        hyper = outcome.parts[0]  # by a prior that is not in the weight file: not told apart
        estimated = (float(outcome.bits) - hyper) / 8
        written = sum(len(run.data) for run in runs)
        # counted tables may be much better than Gaussians, and must not be worse
        assert 0.6 * estimated < written < 1.05 * estimated + hyper / 8 + 24


def test_noise_stands_for_rounding() -> None:
    """Noisy bits are near those of rounding, on average."""
    torch.manual_seed(1)
    model, prior = unheld(), HyperPrior(8)
    image = torch.from_numpy(photograph("astronaut", 96, 128, 20, 160)).permute(2, 0, 1)[None]
    plan = Draw(6000, 2000, 3, np.zeros((6, 8), np.int64))
    with torch.no_grad():
        plain, noisy = (
            np.array(code(model.codec, prior, image.float() / 255, plan, noisy=noisy).parts)
            for noisy in (False, True)
        )
    assert len(plain) == len(noisy) > 10  # hyper-latent, then every phase of every slice
    assert (plain != noisy).all()
    # dearer where a symbol is nearly sure, since noise is not
    assert 0.8 * plain.sum() < noisy.sum() < 2 * plain.sum()


def test_bits_of_a_symbol_are_those_of_its_mass() -> None:
    index = torch.tensor([0.0, 20.0, 40.0, 63.0])[:, None]
    symbols = torch.arange(-3000.0, 3001.0)
    mass = torch.exp2(-symbol_bits(symbols, index))
    assert torch.allclose(mass[1:].sum(1), torch.ones(3), atol=1e-2)
    grown = symbol_bits(torch.tensor([0.0, 3.0, 30.0]), index)
    assert (grown.diff(dim=1) >= 0).all()
    assert (symbol_bits(torch.tensor([2.0]), index).diff(dim=0)[0] < 0).all()


def test_runs_of_training_and_of_files_have_one_order() -> None:
    """A tile of its own, batch of two: the rows of one picture are the rows of both."""
    model = load_model("scene")
    single, double = cell_grid(LABELS, (4, 2)), cell_grid(LABELS, (4, 2), 2)
    with torch.inference_mode():
        hyper = torch.randint(-20, 21, (LABELS.size, model.codec.latent.hyper)).float()
        one = model.codec.entropy.hyper_context(hyper, single)
        both = model.codec.entropy.hyper_context(torch.cat([hyper, hyper.flip(0)]), double)
    assert torch.equal(both[: len(one)], one)
    assert Rectangle(0, ROWS, 0, COLUMNS).size == len(one)
    assert RansEncoder(model.tables).finish() == b""
    RansDecoder(model.tables, b"").finish()
