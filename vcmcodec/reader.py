"""Reading a `.vcm` file: what is in it, and the picture or any part of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from vcmcodec import catalogue, pixels, showing
from vcmcodec.bitstream import icc
from vcmcodec.bitstream.constants import WIDTHS, Kind, LayerId
from vcmcodec.bitstream.container import Container, Entry
from vcmcodec.bitstream.describe import Description, describe, read_text
from vcmcodec.bitstream.header import Group, Header
from vcmcodec.bitstream.limits import Limits
from vcmcodec.errors import RequestError, warn
from vcmcodec.models import load_model
from vcmcodec.parts import Fetched, Parts
from vcmcodec.showing import Shown
from vcmcodec.sources import CountingSource, Openable, open_source, opened_here
from vcmcodec.torch_state import plain_torch

if TYPE_CHECKING:
    from torch import Tensor

    from vcmcodec.nn.gain import Level
    from vcmcodec.nn.model_tensors import Model
    from vcmcodec.profiles import scene

TRANSPARENT = "transparent"
PROFILE_CUT_OFF = "the colour profile is not there: the file is cut off before its end"
GREY_PROFILE_DROPPED = (
    "the colour profile is dropped: it is for grey pictures, and the background has a colour"
)


@dataclass(frozen=True)
class Decoded:
    """A picture, or what was asked for of it.

    Attributes:
        image: RGB or grey; with alpha where cells are absent and the background is transparent.
        layer: the highest layer that all of it comes from.
        groups: ids of the groups that it shows.
        absent: share of the picture's pixels that nothing was decoded for.
        warnings: one sentence each.
    """

    image: Image.Image
    layer: LayerId
    groups: tuple[int, ...]
    absent: float
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class BaseLatent:
    """What machines read of a file.

    Attributes:
        latent: (rows, columns, base channels) float32, dequantised; zero where nothing was decoded.
        level: the rate level that it was coded at.
        present: (rows, columns) bool, the cells of the groups that were decoded.
        groups: ids of those groups.
    """

    latent: Tensor
    level: Level
    present: np.ndarray
    groups: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class _Fetched:
    """What was read of a file, and what it takes to decode it."""

    parts: Fetched
    labels: np.ndarray
    levels: scene.Levels
    model: Model


class Reader:
    """A file whose header has been read; the rest is read when it is asked for.

    Args:
        source: path, bytes, binary file object, or an object with `get_bytes(offset, length)`.

    Raises:
        VcmError: see `Container.read`.
    """

    def __init__(self, source: Openable, limits: Limits | None = None) -> None:
        opened = open_source(source)
        self._owned = opened_here(opened, source)
        self._source = CountingSource(opened)
        self._notes: tuple[str, ...] = ()
        try:
            self.container = Container.read(self._source, limits)
            self.parts = Parts(self.container)
        except BaseException:
            self.close()
            raise

    @property
    def header(self) -> Header:
        """Everything that the file says of itself."""
        return self.container.header

    @property
    def size(self) -> int:
        """Bytes of the whole file, as its directory says."""
        return self.container.size

    @property
    def bytes_read(self) -> int:
        """Bytes that were asked of the source so far."""
        return self._source.bytes_read

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with the file, or was with the last decoding, one sentence each."""
        return self.container.warnings + self._notes

    @property
    def groups(self) -> tuple[Group, ...]:
        """Groups of the file; empty where it has one group and no map."""
        return self.header.groups

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, base first."""
        return tuple(info.layer.name.lower() for info in self.header.layers)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that the file was written for."""
        known = {int(spec.id): spec.name for spec in catalogue.TASKS}
        return tuple(known[info.task] for info in self.header.tasks if info.task in known)

    @property
    def text(self) -> dict[str, str]:
        """Notes about the picture, by key; empty where there are none, or not in this part.

        Raises:
            FormatError: they are damaged.
        """
        return read_text(self.container)

    def note(self, notes: tuple[str, ...]) -> None:
        """Set what was with the last decoding, one sentence each; `warnings` then tells it."""
        self._notes = notes

    def describe(self) -> Description:
        """Everything that `vcm info` shows."""
        return describe(self.container)

    def close(self) -> None:
        """Close the file, if it was opened here."""
        if self._owned is not None:
            self._owned.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    # ---- decoding

    def decode(
        self,
        *,
        groups: Sequence[str | int] | str | int | None = None,
        width: float | None = None,
        background: str | tuple[int, int, int] | None = None,
        longer_side: int | None = None,
        device: str = "cpu",
    ) -> Image.Image:
        """Decode the picture, or the groups and width of it that are asked for (see `inspect`).

        What is missing is told as `VcmWarning`.
        """
        decoded = self.inspect(
            groups=groups, width=width, background=background, longer_side=longer_side,
            device=device,
        )  # fmt: skip
        warn(decoded.warnings)
        return decoded.image

    def inspect(
        self,
        *,
        groups: Sequence[str | int] | str | int | None = None,
        width: float | None = None,
        background: str | tuple[int, int, int] | None = None,
        longer_side: int | None = None,
        device: str = "cpu",
    ) -> Decoded:
        """Decode, and say what was decoded.

        The colour profile is read for every width.  It stands in the layer above the base's, so
        that of a source of ranges a preview reads that far.

        Args:
            groups: labels or ids; None for all that are there.
            width: 0.25, 0.5 or 1; None for the widest that is there.
            background: colour of cells that are not decoded, or "transparent" (the default).
            longer_side: pixels to which the picture is reduced, where it is larger, for less than
                decoding it whole; None: its own size.
            device: where the synthesis runs.

        Raises:
            RequestError: no such group or width, no longer side of a pixel or more, or no base
                layer in the file.
            TruncatedError: the file is cut off within the base layer.
            FormatError: a substream is damaged.
            WeightsError: the model is not there.
        """
        colour = None
        if background is not None and background != TRANSPARENT:
            colour = pixels.parse_colour(background)
        top = self.parts.top_layer(width)
        profiles = self.container.find(Kind.ICC)[:1]  # of previews, too: people look at them
        size = showing.size_of(self.header, longer_side)
        mean = pixels.mean_before(self.header.coded_size, size)
        shown = self._coded_pixels(groups, top, profiles, device, mean)
        image, absent = showing.finish(shown, self.header, size, colour)
        if profiles and shown.icc_profile is None:
            self.note((*self._notes, PROFILE_CUT_OFF))
        if shown.icc_profile is not None and "icc_profile" not in image.info:
            self.note((*self._notes, GREY_PROFILE_DROPPED))
        return Decoded(image, shown.layer, shown.groups, absent, self.warnings)

    def preview(
        self,
        *,
        groups: Sequence[str | int] | str | int | None = None,
        device: str = "cpu",
        mean: int = 1,
    ) -> tuple[np.ndarray, np.ndarray]:
        """What the base layer alone shows, at the size at which the picture is coded, or smaller.

        Args:
            groups: labels or ids; None for all that are there.
            device: where the synthesis runs.
            mean: so many pixels a side, 1, 2, 4 or 8, become their mean, which costs less.

        Returns:
            Pixels (H, W, 3) uint8, black where nothing was decoded, and the cells (rows, columns)
            bool that are there.  H and W are those of the picture over `mean`, rounded up.

        Raises:
            VcmError: as `inspect`.
        """
        base = self.parts.top_layer(WIDTHS[LayerId.BASE])
        shown = self._coded_pixels(groups, base, (), device, mean)
        return shown.rgb, shown.there

    @plain_torch()
    def _coded_pixels(
        self, groups: Sequence[str | int] | str | int | None, top: LayerId,
        profiles: tuple[Entry, ...], device: str, mean: int = 1,
    ) -> Shown:  # fmt: skip
        """Decode up to a layer, at the size at which the picture is coded, over `mean`."""
        from vcmcodec.profiles import scene

        got = self._fetch(groups, top, profiles, device)
        choice, labels = got.parts.choice, got.labels
        height, width = (-(-side // mean) for side in self.header.coded_size)
        rgb = np.zeros((height, width, 3), np.uint8)
        there = np.zeros(labels.shape, bool)
        for layer in sorted(set(choice.layers.values())):
            chosen = {k for k, at in choice.layers.items() if at == layer}
            values, level = self._values(got, layer, chosen)
            inside = np.isin(labels, list(chosen))
            there |= inside
            scene.synthesise(
                got.model, values, level, labels, (height, width),
                wanted=inside, onto=rgb, mean=mean,
            )  # fmt: skip
        notes = list(_missing(self, groups, choice.layers))
        least = min(choice.layers.values())
        if least < top:
            notes.append(f"some groups are there up to layer {least.name.lower()} only")
        self._notes = tuple(notes)
        profile_data = got.parts.data.get(profiles[0]) if profiles else None
        kept = None if profile_data is None else icc.expand(profile_data)
        ids = tuple(self.header.group_ids[k] for k in sorted(choice.layers))
        return Shown(rgb, mean, there, least, ids, kept)

    @plain_torch()
    def latent(
        self, *, groups: Sequence[str | int] | str | int | None = None, device: str = "cpu"
    ) -> BaseLatent:
        """Decode what machines read: the base layer's latent, and no pixel of it.

        Args:
            groups: labels or ids; None for all that are there.
            device: of the result.

        Raises:
            VcmError: as `inspect`.
        """
        got = self._fetch(groups, self.parts.top_layer(WIDTHS[LayerId.BASE]), (), device)
        choice = got.parts.choice
        self.note(_missing(self, groups, choice.layers))
        values, level = self._values(got, LayerId.BASE, set(choice.layers))
        ids = tuple(self.header.group_ids[k] for k in sorted(choice.layers))
        present = np.isin(got.labels, list(choice.layers))
        return BaseLatent(got.model.codec.dequantise(values, level).to(device), level, present, ids)

    def _fetch(
        self, groups: Sequence[str | int] | str | int | None, top: LayerId,
        more: tuple[Entry, ...], device: str,
    ) -> _Fetched:  # fmt: skip
        """Read the group map, the groups' runs and `more`, and what it takes to decode them."""
        from vcmcodec.profiles import scene

        header = self.header
        profile = catalogue.profile(header.profile)
        if profile.source != "picture":
            raise RequestError(
                f"the file holds features (profile {profile.name}), not a picture: analyze it, or"
                " decode it to a .safetensors file (--format safetensors)"
            )
        parts = self.parts.fetch(self.parts.positions(groups), top, more)
        labels = self.parts.labels(parts.data)
        rates = {info.layer: info.rate_level for info in header.layers}
        levels = scene.Levels(rates[LayerId.BASE], rates.get(LayerId.MID))
        self.parts.check_runs(parts, labels, levels.refined)
        model = load_model(profile.name, fingerprint=header.fingerprint, device=device)
        return _Fetched(parts, labels, levels, model)

    def _values(self, got: _Fetched, layer: LayerId, chosen: set[int]) -> tuple[Tensor, Level]:
        """Latent of some group positions up to a layer, in 1/16 steps of the level beside it."""
        from vcmcodec.profiles import scene

        runs = self.parts.runs(got.parts, layer, chosen)
        values = scene.decode_values(got.model, self.header, got.labels, got.levels, runs, layer)
        return values, got.levels.at(layer, got.model.codec.latent.levels)


def _missing(
    reader: Reader, groups: Sequence[str | int] | str | int | None, there: Collection[int]
) -> tuple[str, ...]:
    """What is to be said of groups that were asked for and that the file does not hold."""
    if groups is None:
        return ()
    ids = reader.header.group_ids
    gone = [ids[k] for k in reader.parts.positions(groups) if k not in there]
    names = {group.id: group.title for group in reader.groups}
    told = ", ".join(names.get(number, str(number)) for number in gone)
    return (f"nothing of group {told} is in this file",) if gone else ()
