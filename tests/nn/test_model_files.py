"""Weight files: nothing is lost on the way through one, and wrong ones are refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from photographs import coffee
from vcmcodec import models
from vcmcodec.codec import decode, encode
from vcmcodec.entropy.cdf import gaussian_tables
from vcmcodec.errors import RequestError, WeightsError
from vcmcodec.models import load_model
from vcmcodec.nn.latent_model import LatentShape
from vcmcodec.nn.model_tensors import Model, fingerprint, pack, unpack
from vcmcodec.nn.picture_codec import PictureCodec
from vcmcodec.nn.transforms import TransformShape
from vcmcodec.profiles import scene
from vcmcodec.profiles.tiles import Rectangle

Packed = tuple[dict[str, Tensor], dict[str, str]]

TRANSFORM = TransformShape(trunk=(8, 16, 24), latent=(6, 12, 20), trunk_blocks=1, latent_blocks=1)
LATENT = LatentShape(
    slices=(2, 4, 6, 8), phases=(6, 2, 2, 2), layers=(0, 0, 1, 2), hyper=3, levels=scene.LEVELS
)


def tiny_codec(seed: int = 1) -> PictureCodec:
    """A small codec whose networks all do something, unfrozen as training leaves it."""
    torch.manual_seed(seed)
    codec = PictureCodec(TRANSFORM, LATENT, scene.LMBDAS)
    with torch.no_grad():
        for name, value in codec.named_parameters():
            if name.endswith("last.weight"):
                value.normal_(0, 20)
            elif name.startswith("entropy.") and "slices" not in name and "refine." not in name:
                value.add_(torch.randn(value.shape) * 7)
        codec.entropy.level_index.add_(torch.linspace(0, 40, scene.LEVELS)[:, None])
        codec.gains.log_gain.copy_(torch.linspace(500, 1700, scene.LEVELS)[:, None])
        codec.gains.log_gain.add_(torch.randn(codec.gains.log_gain.shape) * 40)
        codec.gains.log_inverse.copy_(-codec.gains.log_gain)
    return codec.eval().requires_grad_(False)


def tiny_tables() -> object:
    scales = [0.11 * np.exp(0.118 * i) for i in range(64)]
    return gaussian_tables([*scales, *[2.0] * LATENT.hyper], tail=1e-4, skip=1)


@pytest.fixture
def packed() -> Packed:
    codec = tiny_codec()
    codec.entropy.freeze()
    codec.gains.freeze()
    return pack(codec, tiny_tables())  # type: ignore[arg-type]


def coded(model: Model) -> list[bytes]:
    """All runs of a given latent: the analysis, stored in half precision, has no part in it."""
    labels = np.array([[0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 1]])
    source = scene.Source(coffee(40, 60), labels, 2, 0)
    random = torch.Generator().manual_seed(9)
    latent = torch.randn(labels.size, LATENT.channels, generator=random) * 0.3
    piece = scene.Piece(0, Rectangle(0, 3, 0, 4), latent)
    runs = scene.encode(model, source, [piece], scene.Levels(2000, 7000), digest=True)
    return [run.data for run in runs]


def test_a_file_keeps_every_symbol(packed: Packed) -> None:
    """Packing, loading and holding the integers leave the bytes as they were."""
    codec = tiny_codec()
    codec.entropy.freeze()
    codec.gains.freeze()
    codec.hyper_analysis.half().float()  # what the encoder alone needs is stored so
    before = coded(Model(codec, tiny_tables(), b""))  # type: ignore[arg-type]
    loaded = unpack(*packed)
    assert before == coded(loaded)
    assert sum(map(len, before)) > 300
    again = pack(loaded.codec, loaded.tables)
    assert again[1] == packed[1]
    assert again[0].keys() == packed[0].keys()
    assert all(torch.equal(again[0][name], value) for name, value in packed[0].items())


def test_what_decides_symbols_is_stored_in_integers(packed: Packed) -> None:
    tensors, _ = packed
    for name, value in tensors.items():
        symbols = name.startswith(("entropy.", "tables.")) or name == "gains.log_gain"
        assert value.dtype.is_floating_point != symbols, name
    assert tensors["entropy.slices.1.own.weight"].dtype == torch.int8
    assert tensors["analysis.latent_blocks.0.taps"].dtype == torch.float16
    assert tensors["synthesis.patch.weight"].dtype == torch.float32
    assert tensors["gains.log_inverse"].dtype == torch.float32


def test_half_precision_loses_nothing_that_shows(packed: Packed) -> None:
    model, plain = unpack(*packed), tiny_codec()
    image = torch.from_numpy(coffee(48, 64)).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        latent = torch.cat(plain.analysis(image, None, 3), -1)
        apart = (plain.synthesis(latent, None) - model.codec.synthesis(latent, None)).abs().max()
    assert float(apart) < 0.5 / 255


@pytest.mark.parametrize(
    "name",
    ["entropy.slices.0.first.weight", "entropy.hyper_gather.bias", "entropy.level_index",
     "entropy.companding", "gains.log_gain", "tables.cdf", "tables.offsets"],
)  # fmt: skip
def test_the_fingerprint_covers_what_decides_symbols(packed: Packed, name: str) -> None:
    tensors, metadata = packed
    changed = tensors[name].clone()
    changed.view(-1)[-1 if name == "tables.offsets" else 0] += 1
    with pytest.raises(WeightsError):
        unpack(tensors | {name: changed}, metadata)


def test_the_fingerprint_leaves_transforms_free(packed: Packed) -> None:
    """A better synthesis must not break files that exist."""
    tensors, metadata = packed
    for name in ("synthesis.patch.bias", "analysis.mean", "gains.log_inverse"):
        changed = tensors | {name: tensors[name] + 0.01}
        assert unpack(changed, metadata).fingerprint.hex() == metadata["fingerprint"]
    other = tiny_codec(seed=2)
    other.entropy.freeze()
    other.gains.freeze()
    assert pack(other, tiny_tables())[1]["fingerprint"] != metadata["fingerprint"]  # type: ignore[arg-type]


def test_the_fingerprint_does_not_depend_on_how_integers_are_held() -> None:
    values = torch.arange(-5, 7).reshape(3, 4)
    marks = {fingerprint({"a": values.to(kind)}, LATENT) for kind in
             (torch.int8, torch.int16, torch.int32, torch.float32)}  # fmt: skip
    assert len(marks) == 1
    assert fingerprint({"a": values.reshape(4, 3)}, LATENT) not in marks
    assert fingerprint({"b": values}, LATENT) not in marks


def test_a_sum_beyond_the_bound_is_not_saved() -> None:
    codec = tiny_codec()
    codec.entropy.freeze()
    codec.entropy.slices[2].second.bias[3] = 2.0**18
    with pytest.raises(WeightsError, match=r"slices\.2\.second: a sum of up to"):
        pack(codec, tiny_tables())  # type: ignore[arg-type]


def resealed(packed: Packed, name: str, change: Tensor) -> Packed:
    """Weights with another tensor and the fingerprint to match, as a forger would make them."""
    tensors, metadata = packed
    tensors = tensors | {name: change}
    symbols = {
        n: v
        for n, v in tensors.items()
        if n.startswith(("entropy.", "tables.")) or n == "gains.log_gain"
    }
    return tensors, metadata | {"fingerprint": fingerprint(symbols, LATENT).hex()}


def test_a_sum_beyond_the_bound_is_not_loaded(packed: Packed) -> None:
    name = "entropy.slices.2.second.bias"
    bias = packed[0][name].to(torch.int32)
    bias[3] = 2**24
    with pytest.raises(WeightsError, match=r"slices\.2\.second: a sum of up to"):
        unpack(*resealed(packed, name, bias))
    bias[3] = 2**20
    unpack(*resealed(packed, name, bias))


def test_weights_beyond_eight_bits_are_not_loaded(packed: Packed) -> None:
    name = "entropy.slices.2.second.weight"
    weight = packed[0][name].to(torch.int16)
    weight[0] = 128
    with pytest.raises(WeightsError, match="beyond 127"):
        unpack(*resealed(packed, name, weight))


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (-1, 128, "not within 0..127"),
        (slice(None), 10**6, "not within 0..127"),
        (0, -1, "not within 0..127"),
        (2000, 3, "falls"),
        (-1, 0, "falls"),
    ],
)
def test_a_companding_table_that_the_proof_does_not_cover_is_not_loaded(
    packed: Packed, place: int | slice, value: int, words: str
) -> None:
    """Its entries enter sums whose bound assumes that no input is larger than 127."""
    name = "entropy.companding"
    table = packed[0][name].to(torch.int32)
    table[place] = value
    with pytest.raises(WeightsError, match=f"companding: .*{words}"):
        unpack(*resealed(packed, name, table))


def test_a_companding_table_within_the_proof_is_loaded(packed: Packed) -> None:
    name = "entropy.companding"
    for table in (torch.zeros(4096), torch.full((4096,), 127)):
        unpack(*resealed(packed, name, table.to(torch.int32)))


@pytest.mark.parametrize("size", [0, 4095, 4097])
def test_a_companding_table_of_another_length_is_not_loaded(packed: Packed, size: int) -> None:
    name = "entropy.companding"
    with pytest.raises(WeightsError, match="companding"):
        unpack(*resealed(packed, name, torch.full((size,), 5)))


def test_a_companding_table_that_the_proof_does_not_cover_is_not_saved() -> None:
    codec = tiny_codec()
    codec.entropy.freeze()
    codec.entropy.companding[-1] = 128
    with pytest.raises(WeightsError, match=r"companding: .*not within 0..127"):
        pack(codec, tiny_tables())  # type: ignore[arg-type]


@pytest.mark.parametrize(("part", "value"), [("weight", -1), ("share", 129), ("own", 129)])
def test_a_guess_beyond_its_range_is_not_loaded(packed: Packed, part: str, value: int) -> None:
    name = f"entropy.guess.{part}"
    table = packed[0][name].to(torch.int16)
    table[0, 1] = value
    with pytest.raises(WeightsError, match="guess"):
        unpack(*resealed(packed, name, table))


def test_fractions_are_not_loaded_where_integers_belong(packed: Packed) -> None:
    name = "entropy.level_index"
    with pytest.raises(WeightsError, match="integers"):
        unpack(*resealed(packed, name, packed[0][name].float() + 0.25))


def test_every_channel_of_the_hyper_latent_needs_its_table() -> None:
    codec = tiny_codec()
    codec.entropy.freeze()
    codec.gains.freeze()
    few = gaussian_tables([1.0] * (64 + LATENT.hyper - 1), tail=1e-4, skip=1)
    with pytest.raises(WeightsError, match="66 coding tables, 67 are needed"):
        unpack(*pack(codec, few))


@pytest.mark.parametrize(
    "damage",
    [
        lambda t, m: (t, {}),
        lambda t, m: (t, m | {"latent": "{}"}),
        lambda t, m: (t, m | {"latent": "no json"}),
        lambda t, m: (t, m | {"transform": "[1, 2]"}),
        lambda t, m: (t, m | {"fingerprint": "0" * 16}),
        lambda t, m: ({k: v for k, v in t.items() if k != "tables.cdf"}, m),
        lambda t, m: ({k: v for k, v in t.items() if k != "synthesis.split.bias"}, m),
        lambda t, m: (t | {"synthesis.split.bias": torch.zeros(3)}, m),
        lambda t, m: (t | {"tables.cdf": t["tables.cdf"][:-1]}, m),
        lambda t, m: (t | {"tables.cdf": t["tables.cdf"] * 0}, m),
        lambda t, m: (t, m | {"transform": m["transform"].replace("[6, ", "[5, ")}),
    ],
)
def test_damaged_weights_are_refused(packed: Packed, damage: object) -> None:
    with pytest.raises(WeightsError):
        unpack(*damage(*packed))  # type: ignore[operator]


# ---- through a manifest


def install(folder: Path, packed: Packed, **changes: object) -> None:
    blob = save(*packed)
    (folder / "tiny.safetensors").write_bytes(blob)
    line = {
        "id": "tiny",
        "profile": "scene",
        "file": "tiny.safetensors",
        "sha256": hashlib.sha256(blob).hexdigest(),
        "fingerprint": packed[1]["fingerprint"],
        "bytes": len(blob),
        "default": False,
    }
    (folder / "manifest.json").write_text(json.dumps({"models": [line | changes]}))


@pytest.fixture
def own_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VCMCODEC_WEIGHTS", str(tmp_path))
    models._load.cache_clear()
    return tmp_path


def test_a_file_finds_its_model_by_fingerprint(own_weights: Path, packed: Packed) -> None:
    install(own_weights, packed)
    file = encode(coffee(), model="tiny", quality=60)
    assert file != encode(coffee(), quality=60)
    assert decode(file).size == (97, 131)
    (own_weights / "manifest.json").write_text(json.dumps({"models": []}))
    mark = packed[1]["fingerprint"]
    with pytest.raises(WeightsError, match=f"no model for .*{mark}"):
        decode(file)


def test_a_manifest_that_lies_about_a_fingerprint_is_found_out(
    own_weights: Path, packed: Packed
) -> None:
    install(own_weights, packed, fingerprint="12" * 8)
    with pytest.raises(WeightsError, match="not the one"):
        load_model("scene", fingerprint=bytes.fromhex("12" * 8))


def test_forged_weights_are_refused_on_loading(own_weights: Path, packed: Packed) -> None:
    name = "entropy.hyper_features.bias"
    forged = resealed(packed, name, packed[0][name].to(torch.int32) + 2**24)
    install(own_weights, forged)
    with pytest.raises(WeightsError, match="hyper_features: a sum of up to"):
        load_model("scene", "tiny")


def test_files_that_are_no_weights_are_refused(own_weights: Path, packed: Packed) -> None:
    install(own_weights, packed)
    path = own_weights / "tiny.safetensors"
    blob = bytearray(path.read_bytes())
    blob[-1] ^= 1
    path.write_bytes(blob)
    with pytest.raises(WeightsError, match="damaged"):
        load_model("scene", "tiny")
    path.write_bytes(b"junk")
    line = {"sha256": hashlib.sha256(b"junk").hexdigest(), "bytes": 4}
    manifest = json.loads((own_weights / "manifest.json").read_text())
    manifest["models"][0] |= line
    (own_weights / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(WeightsError, match="not a weight file"):
        load_model("scene", "tiny")


def test_a_device_that_is_not_there_is_a_request_error(own_weights: Path, packed: Packed) -> None:
    install(own_weights, packed)
    with pytest.raises(RequestError, match="no device nonsense"):
        load_model("scene", "tiny", device="nonsense")
