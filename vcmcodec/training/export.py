"""From trained networks to a weight file: freeze, fit the tables, save, enter in the manifest."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from vcmcodec.bitstream.constants import LayerId
from vcmcodec.entropy.cdf import Tables, gaussian_tables, tables_from_counts
from vcmcodec.errors import RequestError
from vcmcodec.nn.gain import RATE_LEVEL_MAX
from vcmcodec.nn.latent_codec import LatentCodec
from vcmcodec.nn.latent_model import SCALE_COUNT
from vcmcodec.nn.model_tensors import Model, pack, unpack
from vcmcodec.nn.picture_codec import PictureCodec
from vcmcodec.nn.pyramid_codec import LATENT_STRIDE
from vcmcodec.nn.rate_estimate import SCALE_FIRST, SCALE_RATIO
from vcmcodec.profiles import coding, scene
from vcmcodec.profiles.base_layer import encode_base
from vcmcodec.training.photographs import PhotographCrops, random_labels

REACH = 600  # largest symbol that is counted; what lies beyond goes to the escape
PRIOR_WEIGHT = 400.0  # symbols that the Gaussian counts as, beside the counted ones
SKIPPED = 1


def scales() -> list[float]:
    """Deviation of each of the latent's tables, in steps."""
    return [SCALE_FIRST * math.exp(SCALE_RATIO * i) for i in range(SCALE_COUNT)]


def first_tables(hyper: int) -> Tables:
    """Gaussian tables, before anything was counted; wide ones for the hyper-latent."""
    return gaussian_tables([*scales(), *[2.0] * hyper], tail=1e-4, skip=SKIPPED)


class _Counter(coding.EncodingCoder):
    """Counts symbols by table instead of coding them."""

    counts: np.ndarray

    def _push(self, rows: Tensor, symbols: np.ndarray, index: np.ndarray) -> None:
        kept = np.clip(symbols, -REACH - 1, REACH + 1) + REACH + 1
        np.add.at(self.counts, (index.reshape(-1), kept.reshape(-1)), 1)

    def finish(self) -> dict[int, bytes]:
        return dict.fromkeys(range(self.hand.groups), b"")


def counting(tables: int) -> tuple[type[coding.EncodingCoder], np.ndarray]:
    """A coder that counts symbols instead of coding them.

    Args:
        tables: how many a model has.

    Returns:
        The coder's class, and what it counts into: how often each value occurs under each table,
        (tables, 2 REACH + 3) int64, the outermost for all beyond.
    """
    counts = np.zeros((tables, 2 * REACH + 3), np.int64)
    return type("Counter", (_Counter,), {"counts": counts}), counts


def count_symbols(model: Model, crops: Sequence[Tensor], random: np.random.Generator) -> np.ndarray:
    """How often each value occurs under each table: (tables, 2 REACH + 3) int64.

    Levels, refinements and group maps are drawn at random, as in use.
    """
    counter, counts = counting(len(model.tables))
    for crop in crops:
        rows, columns = crop.shape[1] // 16, crop.shape[2] // 16
        labels = np.zeros((rows, columns), np.int64)
        if random.random() < 0.2:
            labels = random_labels(rows, columns, random)
        rgb = (crop * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        people = int(random.integers(10001))
        base = people if random.random() < 0.5 else int(random.integers(people + 1))
        source = scene.Source(rgb, labels, int(labels.max()) + 1, 0)
        pieces = list(scene.analyse(model, source, len(LayerId)))
        levels = scene.Levels(base, people)
        scene.encode(model, source, pieces, levels, coder_class=counter)
    return counts


def count_base_symbols(
    model: Model, crops: Tensor, random: np.random.Generator,
    latent_of: Callable[[Tensor, np.ndarray], Tensor], price: Callable[[Any, int], Tensor],
) -> np.ndarray:  # fmt: skip
    """The same of a profile of features, whose base is all there is.

    Args:
        model: whose tables are counted for.
        crops: (N, 3, H, W).
        latent_of: one crop (1, 3, H, W) and a group map to a latent (rows, columns, channels).
        price: codec and rate level to the price that `EncodingCoder` weighs bits with.
    """
    counter, counts = counting(len(model.tables))
    side = crops.shape[-1] // LATENT_STRIDE
    for crop in crops:
        labels = np.zeros((side, side), np.int64)
        if random.random() < 0.2:
            labels = random_labels(side, side, random)
        latent = latent_of(crop[None], labels)
        level = int(random.integers(RATE_LEVEL_MAX + 1))
        worth, groups = price(model.codec, level), int(labels.max()) + 1
        encode_base(model, latent, labels, groups, level, price=worth, coder_class=counter)
    return counts


def fit_tables(counts: np.ndarray, hyper: int) -> Tables:
    """Tables of the counted symbols: symmetric and leaning on the Gaussian for the latent."""
    histograms, offsets = [], []
    values = np.arange(-REACH, REACH + 1)
    for index, scale in enumerate(scales()):
        inner = counts[index, 1:-1].astype(np.float64)
        inner = (inner + inner[::-1]) / 2
        upper = np.array([math.erfc((abs(v) - 0.5) / scale * math.sqrt(0.5)) for v in values])
        lower = np.array([math.erfc((abs(v) + 0.5) / scale * math.sqrt(0.5)) for v in values])
        gaussian = np.maximum((upper - lower) / 2, 0)
        histogram = inner + PRIOR_WEIGHT * gaussian
        span = min(REACH, max(2, int(6 * scale) + 2))
        histograms.append(histogram[REACH - span : REACH + span + 1])
        offsets.append(-span)
    for channel in range(hyper):
        inner = counts[SCALE_COUNT + channel, 1:-1].astype(np.float64)
        histograms.append(inner[REACH - 40 : REACH + 41])
        offsets.append(-40)
    return tables_from_counts(histograms, offsets, prior_weight=8.0, tail=2e-5, skip=SKIPPED)


def export(
    codec: PictureCodec,
    data: Sequence[Path],
    *,
    crops: int = 300,
    seed: int = 7,
    show: Callable[[str], None] = print,
) -> tuple[bytes, str]:
    """Freeze the networks, count symbols on training crops, fit the tables.

    Returns:
        The bytes of a safetensors file and the fingerprint in hexadecimal digits.
    """
    random = np.random.default_rng(seed)
    pool = PhotographCrops(data, 256)

    def count(model: Model) -> np.ndarray:
        return count_symbols(model, list(pool.batch(crops, random)), random)

    return write_model(fit_model(codec, count, show))


def fit_model(
    codec: LatentCodec, count: Callable[[Model], np.ndarray], show: Callable[[str], None] = print
) -> Model:
    """Freeze the networks of a codec and fit the tables to the symbols that it makes.

    Args:
        count: counts symbols; see `counting`.
        show: is told of the progress.
    """
    codec.eval().requires_grad_(False)
    codec.entropy.freeze()
    codec.gains.freeze()
    codec.entropy.prove_exact()
    hyper = codec.latent.hyper
    model = Model(codec, first_tables(hyper), b"")
    for turn in range(2):  # rounding weighs bits by the tables, so they are fitted twice
        counts = count(model)
        model = replace(model, tables=fit_tables(counts, hyper))
        show(f"tables {turn + 1}: {int(counts.sum()):,} symbols counted")
    return model


def write_model(model: Model) -> tuple[bytes, str]:
    """The bytes of a safetensors file, and the fingerprint in hexadecimal digits.

    Raises:
        WeightsError: what was written could not be read back.
    """
    tensors, metadata = pack(model.codec, model.tables)
    blob = save(tensors, metadata)
    unpack(tensors, metadata, type(model.codec).rebuild)
    return blob, metadata["fingerprint"]


def check_room(folder: Path, model_id: str, profile: str) -> dict[str, Any]:
    """The manifest of a folder that a model may be written to; an empty one where there is none.

    Raises:
        RequestError: it is no manifest, or a model of another profile has that name.
    """
    path = folder / "manifest.json"
    if not path.exists():
        return {"models": []}
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        profiles = {str(line["id"]): str(line["profile"]) for line in manifest["models"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(f"{path} is there and no manifest of models: {error}") from error
    taken = profiles.get(model_id, profile)
    if taken != profile:
        raise RequestError(f"{folder} has a {model_id} already, of profile {taken}: name another")
    return manifest


def enter(
    folder: Path, model_id: str, profile: str, blob: bytes, mark: str, **facts: object
) -> None:
    """Write the weight file and its line in `manifest.json`; it becomes the profile's default.

    Both files appear whole or not at all, since others may read the folder meanwhile.

    Raises:
        RequestError: see `check_room`.
    """
    manifest = check_room(folder, model_id, profile)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / f"{model_id}.safetensors", blob)
    path = folder / "manifest.json"
    others = [m for m in manifest["models"] if m["id"] != model_id]
    for other in others:
        if other["profile"] == profile:
            other["default"] = False
    line = {
        "id": model_id,
        "profile": profile,
        "file": f"{model_id}.safetensors",
        "sha256": hashlib.sha256(blob).hexdigest(),
        "fingerprint": mark,
        "bytes": len(blob),
        "default": True,
        **facts,
    }
    _write(path, (json.dumps({"models": [*others, line]}, indent=2) + "\n").encode())


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    os.replace(part, path)
