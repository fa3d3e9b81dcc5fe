"""The entropy model of a latent on the cell grid: hyper-latent, slices, phases, refinement.

One traversal serves training, encoding and decoding: it walks through hyper-latent, slices and
phases in file order, lets integer networks (`integer.py`) choose a mean and a table for every
value, and hands these to a *coder*, which answers with the values:

    training   estimates bits, rounds straight through       (training/)
    encoding   rounds what the analysis transform gave       (profiles/coding.py)
    decoding   takes symbols out of the bitstream            (profiles/coding.py)

so that the two ends cannot differ in their order.  Values are rows (cells) by columns (channels).

    hyper-latent z ----------------> h: what the neighbourhood looks like --.
    earlier slices, here and around -----------------------------------------+--> mean, table
    this slice's earlier phases, around ------------------------------------'

A refinement codes the base's channels again at a finer level; the base's own values, scaled by an
exact integer ratio, are its means and its context.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from vcmcodec.nn.gain import LOG_UNIT, Level
from vcmcodec.nn.integer import (
    ACTIVATION_MAX,
    IntegerLinear,
    check_companding,
    compand,
    compand_smooth,
    companding_table,
    floor_through,
)
from vcmcodec.nn.neighbour_guess import FAR_FIRST, FAR_PHASES, NeighbourGuess
from vcmcodec.nn.ratios import scale_exactly
from vcmcodec.nn.slice_model import CellGrid, SliceModel, gather

SCALE_COUNT = 64
INDEX_PER_OCTAVE_64 = 376  # 64 times the table indexes in a doubling of the scale (ln 2 / 0.118)


@dataclass(frozen=True)
class LatentShape:
    """How a latent is cut into slices.

    Attributes:
        slices: channels of each slice.
        phases: passes over the cells for each slice, 1, 2 or 4, or 6 for a first slice that starts
            from far apart and guesses (`NeighbourGuess`).
        layers: which layer (0 base, 1 mid, 2 full) each slice belongs to, non-decreasing.
        hyper: channels of the hyper-latent, which belongs to the base.
        levels: trained rate levels.
    """

    slices: tuple[int, ...]
    phases: tuple[int, ...]
    layers: tuple[int, ...]
    hyper: int
    levels: int

    @property
    def base_slices(self) -> tuple[int, ...]:
        """Channels of the slices that belong to the base."""
        return tuple(c for c, layer in zip(self.slices, self.layers, strict=True) if layer == 0)

    @property
    def base_channels(self) -> int:
        """Channels of the base."""
        return sum(self.base_slices)

    @property
    def channels(self) -> int:
        """Channels of the whole latent."""
        return sum(self.slices)

    @property
    def layer_channels(self) -> tuple[int, ...]:
        """Channels that are known once each layer is decoded."""
        pairs = list(zip(self.slices, self.layers, strict=True))
        return tuple(sum(c for c, at in pairs if at <= k) for k in sorted(set(self.layers)))


class Coder(Protocol):
    """What a traversal asks for values.  `where` names the first channel that is coded."""

    exact: bool

    def hyper(self, channels: int) -> Tensor:
        """Hyper-latent of all cells: integer-valued (cells, channels)."""

    def values(self, where: slice, rows: Tensor, mean: Tensor, index: Tensor) -> Tensor:
        """Code the given rows; mean (1/16 steps) and table index are (rows, channels).

        Returns decoded values in 1/16 steps.
        """


class LatentModel(nn.Module):
    """Integer networks and level vectors of a whole latent."""

    def __init__(self, shape: LatentShape, *, refined: bool = True) -> None:
        """Build for a shape; without `refined` there is nothing to code the base again with."""
        super().__init__()
        self.shape = shape
        width = SliceModel.HYPER
        self.companding: Tensor
        self.register_buffer("companding", companding_table())
        self.hyper_gather = IntegerLinear(9 * shape.hyper, 128, shift=6)
        self.hyper_features = IntegerLinear(128, width, shift=6)
        self.level_features = nn.Parameter(torch.zeros(shape.levels, width))
        self.level_index = nn.Parameter(torch.zeros(shape.levels, shape.channels))
        if refined:
            self.refine_features = nn.Parameter(torch.zeros(shape.levels, width))
            self.refine_base_features = nn.Parameter(torch.zeros(shape.levels, width))
            self.refine_index = nn.Parameter(torch.zeros(shape.base_channels))
        first = shape.slices[0]
        self.guess = NeighbourGuess(first) if shape.phases[0] == FAR_PHASES else None
        before = 0
        models = []
        for channels in shape.slices:
            models.append(SliceModel(channels, before))
            before += channels
        self.slices = nn.ModuleList(models)
        refine, done = [], 0
        for channels in shape.base_slices if refined else ():
            refine.append(SliceModel(channels, shape.base_channels + done))
            done += channels
        self.refine = nn.ModuleList(refine)

    @property
    def level_tables(self) -> tuple[str, ...]:
        """Names of the vectors that go with rate levels."""
        return tuple(name for name, _ in self.named_parameters(recurse=False))

    @property
    def integer_tables(self) -> tuple[str, ...]:
        """Names of all parameters that are stored as they are: level vectors and the guess."""
        guess = () if self.guess is None else self.guess.named_parameters("guess")
        return self.level_tables + tuple(name for name, _ in guess)

    # ---- pieces that differ between training and coding only in their gradients

    def _level(self, level: Level, table: Tensor, exact: bool) -> Tensor:
        return level.integers(table) if exact else level.smooth(table)

    def _compand(self, values: Tensor, exact: bool) -> Tensor:
        one = compand(values, self.companding) if exact else compand_smooth(values)
        return torch.cat([one, one.abs()], 1)

    def hyper_context(self, hyper: Tensor, grid: CellGrid) -> Tensor:
        """Features (cells, 96) of the hyper-latent around each cell, without a level."""
        scaled = (hyper * 4).clamp(-ACTIVATION_MAX, ACTIVATION_MAX)
        return self.hyper_features(self.hyper_gather(gather(scaled, grid.neighbours)))

    # ---- traversals

    def code_slices(
        self, coder: Coder, grid: CellGrid, level: Level, hyper: Tensor, layer: int, base: Tensor
    ) -> Tensor:
        """Code the slices of one layer.

        Args:
            hyper: `hyper_context`.
            base: values of all channels before this layer, (cells, n), 1/16 steps of `level`.

        Returns:
            (cells, n + channels of this layer), 1/16 steps.
        """
        features = self._level(level, self.level_features, coder.exact)
        hyper = (hyper + features).clamp(-ACTIVATION_MAX, ACTIVATION_MAX)
        offsets = self._level(level, self.level_index, coder.exact)
        done = base
        for number, model in enumerate(self.slices):
            assert isinstance(model, SliceModel)
            if self.shape.layers[number] != layer:
                continue
            where = slice(done.shape[1], done.shape[1] + model.channels)
            before = self._compand(done, coder.exact) if done.shape[1] else None
            values = self._code(
                coder,
                grid,
                model,
                where,
                self.shape.phases[number],
                hyper,
                before,
                offsets[where],
                self.guess if number == 0 else None,
            )
            done = torch.cat([done, values], 1)
        return done

    def carry_over(
        self, values: Tensor, level: Level, base_level: Level, log_gain: Tensor
    ) -> Tensor:
        """Values of the base in 1/16 steps of another level, in integers; nothing is coded.

        Args:
            values: (cells, base channels), 1/16 steps of `base_level`.
            log_gain: (levels, base channels) integer gains in 1/256 octave (`gain.Gains`).
        """
        return scale_exactly(values, level.integers(log_gain) - base_level.integers(log_gain))

    def code_refinement(
        self,
        coder: Coder,
        grid: CellGrid,
        level: Level,
        base_level: Level,
        hyper: Tensor,
        base: Tensor,
        log_gain: Tensor,
    ) -> Tensor:
        """Code the base's channels again at `level`, given their values at `base_level`.

        Args:
            base: (cells, base channels), 1/16 steps of `base_level`.
            log_gain: (levels, base channels) integer gains in 1/256 octave (`gain.Gains`).

        Returns:
            (cells, base channels) in 1/16 steps of `level`.
        """
        octaves = level.integers(log_gain) - base_level.integers(log_gain)
        guess = scale_exactly(base, octaves)
        features = self._level(level, self.refine_features, coder.exact)
        features = features + self._level(base_level, self.refine_base_features, coder.exact)
        hyper = (hyper + features).clamp(-ACTIVATION_MAX, ACTIVATION_MAX)
        start = floor_through(self.refine_index + 0.5)
        offsets = start + torch.floor(octaves * INDEX_PER_OCTAVE_64 / (64 * LOG_UNIT))
        seen = self._compand(guess, coder.exact)
        done = base[:, :0]
        for number, model in enumerate(self.refine):
            assert isinstance(model, SliceModel)
            where = slice(done.shape[1], done.shape[1] + model.channels)
            before = seen
            if done.shape[1]:
                before = torch.cat([seen, self._compand(done, coder.exact)], 1)
            values = self._code(
                coder,
                grid,
                model,
                where,
                self.shape.phases[number],
                hyper,
                before,
                offsets[where],
                guess[:, where],
            )
            done = torch.cat([done, values], 1)
        return done

    def _code(
        self,
        coder: Coder,
        grid: CellGrid,
        model: SliceModel,
        where: slice,
        phases: int,
        hyper: Tensor,
        before: Tensor | None,
        offsets: Tensor,
        guess: Tensor | NeighbourGuess | None,
    ) -> Tensor:
        context = model.context(hyper, before, grid)
        values = hyper.new_zeros(grid.size, model.channels)
        decoded = torch.zeros(grid.size, dtype=torch.bool, device=values.device)
        alone = FAR_FIRST if phases == FAR_PHASES else 1  # phases without own context
        own = model.look_at_nothing(grid.size) if phases > 1 else None
        for phase, rows in enumerate(grid.phases[phases]):
            mean, index = model.predict(context, own if phase >= alone else None, rows, grid)
            if isinstance(guess, Tensor):
                mean = mean + guess[rows]
            elif guess is not None and phase:
                near = (grid.far if phase < FAR_FIRST else grid.neighbours)[rows]
                mean, more = guess(phase, mean, values, near, decoded, exact=coder.exact)
                index = index + more
            index = (index + offsets).clamp(0, SCALE_COUNT - 1)
            coded = coder.values(where, rows, mean, index)
            values = values.index_copy(0, rows, coded)
            decoded[rows] = True
            if own is not None and phase + 1 < phases:
                own = own.index_copy(0, rows, model.look(self._compand(coded, coder.exact)))
        return values

    # ---- export

    @torch.no_grad()
    def freeze(self) -> None:
        """Round everything that chooses a table to the integers that are stored."""
        for module in self.modules():
            if isinstance(module, IntegerLinear):
                module.freeze()
        if self.guess is not None:
            self.guess.freeze()
        for name in self.level_tables:
            table = self.get_parameter(name)
            table.copy_(torch.floor(table + 0.5))

    def hold(self) -> None:
        """Make ready for coding: integers are rounded once, not at every use."""
        for module in self.modules():
            if isinstance(module, IntegerLinear | NeighbourGuess):
                module.hold()

    def prove_exact(self) -> None:
        """Raise WeightsError unless every sum of every integer network is exact in float32."""
        check_companding(self.companding)
        for name, module in self.named_modules():
            if isinstance(module, IntegerLinear):
                module.prove_exact(name)
