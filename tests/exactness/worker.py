"""Run as a process under some settings: what do the entropy networks choose, what is decoded?

    python worker.py FOLDER NAME

reads FOLDER/given.npz (a latent and a hyper-latent, in integers) and FOLDER/*.vcm, and writes
FOLDER/NAME.json: fingerprints of all means, table indexes and symbols for every combination of
threads, batch size and oneDNN on and off.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from vcmcodec.codec import decode, encode
from vcmcodec.codec import open as open_file
from vcmcodec.models import load_model
from vcmcodec.nn.gain import Level
from vcmcodec.nn.integer import VALUE_UNIT
from vcmcodec.nn.latent_model import LatentModel
from vcmcodec.nn.model_tensors import Model
from vcmcodec.nn.picture_codec import cell_grid
from vcmcodec.profiles import scene

BASE_LEVEL, LEVEL = 2100, 7350


class Witness:
    """A coder over a given latent that keeps what the first picture of a batch was asked."""

    exact = True

    def __init__(self, latent: Tensor, hyper: Tensor, cells: int) -> None:
        self.latent, self._hyper, self.cells = latent, hyper, cells
        self.hash = hashlib.sha256()
        self.chosen: list[np.ndarray] = []

    def hyper(self, channels: int) -> Tensor:
        return self._hyper

    def values(self, where: slice, rows: Tensor, mean: Tensor, index: Tensor) -> Tensor:
        symbols = torch.floor(self.latent[rows, where] - mean / VALUE_UNIT + 0.5)
        first = rows < self.cells
        for asked in (mean, index, symbols):
            self.hash.update(np.ascontiguousarray(asked[first].numpy(), "<f4").tobytes())
        self.chosen.append(index[first].numpy())
        return symbols * VALUE_UNIT + mean


def traverse(
    entropy: LatentModel, log_gain: Tensor, given: dict[str, np.ndarray], batch: int
) -> str:
    """Base, refinement, mid and full of a batch; the fingerprint of the first picture's."""
    labels = given["labels"]
    grid = cell_grid(labels, entropy.shape.phases, batch)
    latent = torch.from_numpy(np.tile(given["latent"], (batch, 1)))
    latent[labels.size :] += 3  # the other pictures are others
    hyper = torch.from_numpy(np.tile(given["hyper"], (batch, 1)))
    coder = Witness(latent, hyper, labels.size)
    low, high = Level(BASE_LEVEL, entropy.shape.levels), Level(LEVEL, entropy.shape.levels)
    features = entropy.hyper_context(coder.hyper(entropy.shape.hyper), grid)
    values = entropy.code_slices(coder, grid, low, features, 0, torch.zeros(grid.size, 0))
    values = entropy.code_refinement(coder, grid, high, low, features, values, log_gain)
    for layer in (1, 2):
        values = entropy.code_slices(coder, grid, high, features, layer, values)
    assert len(np.unique(np.concatenate([i.ravel() for i in coder.chosen]))) > 10
    return coder.hash.hexdigest()


def combinations(model: Model, given: dict[str, np.ndarray]) -> dict[str, str]:
    """Fingerprints by threads, batch and oneDNN."""
    base = model.codec.latent.base_channels
    log_gain = model.codec.gains.log_gain[:, :base]
    out = {}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for batch in (1, 4):
            for mkldnn in (True, False):
                with torch.backends.mkldnn.flags(enabled=mkldnn):
                    found = traverse(model.codec.entropy, log_gain, given, batch)
                out[f"threads {threads}, batch {batch}, oneDNN {mkldnn}"] = found
    torch.set_num_threads(1)
    return out


def decoded_values(model: Model, file: Path) -> str:
    """Fingerprint of all values that a file decodes to, by way of its picture's reader."""
    kept = hashlib.sha256()
    plain = scene.decode_values

    def keep(*arguments: object, **options: object) -> Tensor:
        values = plain(*arguments, **options)  # type: ignore[arg-type]
        kept.update(np.ascontiguousarray(values.numpy(), "<f4").tobytes())
        return values

    with mock.patch.object(scene, "decode_values", keep), open_file(file) as reader:
        reader.decode()
    return kept.hexdigest()


def main(folder: Path, name: str) -> None:
    """See the module's text."""
    with np.load(folder / "given.npz") as arrays:
        given = {key: arrays[key] for key in arrays.files}
    model = load_model("scene")
    found: dict[str, object] = {"capability": torch.backends.cpu.get_cpu_capability()}
    with torch.inference_mode():
        found["integer"] = combinations(model, given)
    found["decoded"] = {p.name: decoded_values(model, p) for p in sorted(folder.glob("*.vcm"))}
    np.save(folder / f"{name}.npy", np.asarray(decode(folder / "file.vcm")))
    made = encode(given["picture"], quality=70, digest=True)
    (folder / f"{name}.vcm.part").write_bytes(made)
    os.replace(folder / f"{name}.vcm.part", folder / f"{name}.made")
    (folder / f"{name}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
