"""Files of the semantic profile: one feature for every task, its groups, and its own encoder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import semantic_model
import vcmcodec
from photographs import astronaut, coffee, photograph, substreams
from vcmcodec import edit, feature_codec, models
from vcmcodec.bitstream.constants import Kind
from vcmcodec.deep import decode_symbols
from vcmcodec.errors import RequestError, WeightsError
from vcmcodec.machine import analyze
from vcmcodec.profiles import semantic
from vcmcodec.profiles.base_layer import encode_base
from vcmcodec.profiles.coding import EncodingCoder
from vcmcodec.profiles.features import bound_network, place_groups
from vcmcodec.vision.backend import Features
from vcmcodec.vision.geometry import prepare
from weights_folder import weights_from


@pytest.fixture(scope="module", autouse=True)
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The semantic model, and the vision network that its adaptor leads to."""
    folder = tmp_path_factory.mktemp("weights")
    semantic_model.install(folder)
    with weights_from(folder):
        yield folder


@pytest.fixture(scope="module")
def found() -> Features:
    model = models.load_model("semantic")
    return semantic.extract(model, photograph("astronaut", 180, 250), "c3", "cpu")  # type: ignore[arg-type]


def encode(source: object, **settings: object) -> bytes:
    return vcmcodec.encode(source, profile="semantic", **settings)  # type: ignore[arg-type]


def blocks(height: int, width: int) -> np.ndarray:
    """Groups by cell: left, right, and in the left one two blocks that taps could bridge."""
    cells = np.zeros((-(-height // 16), -(-width // 16)), np.uint8)
    cells[:, cells.shape[1] // 2 :] = 1
    cells[3:6, 1:3] = 2
    cells[3:6, 4:6] = 3
    return cells


def test_the_feature_is_the_networks_behind_the_filter(found: Features) -> None:
    image, geometry = prepare(photograph("astronaut", 180, 250), semantic_model.LONGER_SIDE)
    with torch.inference_mode():
        wanted = semantic_model.network().feature(image)
    assert torch.equal(found.tensors["c3"], wanted)
    assert found.geometry == geometry
    assert found.model == semantic_model.codec().binding


def test_the_feature_comes_back_better_at_higher_quality(found: Features) -> None:
    sizes, errors = [], []
    true = found.tensors["c3"]
    for quality in (5, 50, 95):
        data = encode(found, quality=quality)
        back = vcmcodec.decode_features(data)
        assert back.geometry == found.geometry
        assert back.tensors["c3"].shape == true.shape
        sizes.append(len(data))
        errors.append(float((back.tensors["c3"] - true).square().mean() / true.var()))
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.6 * errors[0]


def test_a_picture_and_its_feature_make_the_same_file(found: Features) -> None:
    picture = encode(photograph("astronaut", 180, 250), digest=True)
    assert picture == encode(found, digest=True)


@pytest.mark.parametrize("size", [(32, 32), (33, 70), (131, 97), (16, 300)])
def test_pictures_of_any_size(size: tuple[int, int]) -> None:
    """Checklist A7: sides need be multiples of nothing."""
    data = encode(coffee(*size), quality=30)
    seen = analyze(data)
    assert (seen.height, seen.width) == size
    assert seen.label_map is not None
    assert seen.label_map.labels.shape == size


def test_one_payload_serves_every_task() -> None:
    """Checklist A2: the same bytes, whichever task the file is written for."""
    marks = set()
    for task in ("detection", "classification", "segmentation"):
        data = encode(astronaut(), tasks=[task], quality=40)
        parts = {k: v for k, v in substreams(data).items() if k[0] == Kind.LATENT}
        marks.add(hashlib.sha256(b"".join(parts[k] for k in sorted(parts))).hexdigest())
    assert len(marks) == 1
    data = encode(astronaut(), quality=40)
    seen = analyze(data, score=0.0)
    assert seen.objects
    assert seen.classes is not None
    assert seen.label_map is not None
    assert analyze(data, tasks=["classification"]).label_map is None


def test_files_weigh_what_their_tables_say(found: Features) -> None:
    """Checklist A4: bytes on disk against the sum of -log2 p, at three rates."""
    model = models.load_model("semantic")
    coders: list[EncodingCoder] = []

    class Watched(EncodingCoder):
        def __init__(self, *args: object, **settings: object) -> None:
            super().__init__(*args, **settings)  # type: ignore[arg-type]
            coders.append(self)

    labels = np.zeros((found.tensors["c3"].shape[2] // 2, found.tensors["c3"].shape[3] // 2), int)
    coding = model.coding  # type: ignore[attr-defined]
    latent = semantic.latent_of(coding.codec, found.tensors["c3"], labels)
    for quality in (10, 50, 90):
        data = encode(found, quality=quality)
        worth = semantic.price(coding.codec, 100 * quality)
        runs = encode_base(
            coding, latent, labels, 1, 100 * quality, price=worth, coder_class=Watched
        )
        (mine,) = (v for k, v in substreams(data).items() if k[0] == Kind.LATENT)
        assert mine == runs[0].data
        assert abs(8 * len(mine) - coders[-1].bits) < 0.01 * coders[-1].bits + 64
        assert len(data) - len(mine) <= 64


def test_results_come_from_the_decoded_feature_alone() -> None:
    """Checklist A3: the encoder is not run again, and there are no pixels to decode."""
    data = encode(astronaut(), quality=60)
    model = models.load_model("semantic")
    seeing = bound_network(model.facts.reference, "cpu")  # type: ignore[attr-defined]
    parts = {"encoder": model.encoder, "adaptor": model.adaptor}  # type: ignore[attr-defined]
    parts |= dict(seeing.model.network.named_children())
    ran: list[str] = []
    hooks = [
        part.register_forward_hook(lambda *_, name=name: ran.append(name))
        for name, part in parts.items()
    ]
    seen = analyze(data, score=0.1)
    for hook in hooks:
        hook.remove()
    behind = {"c4", "c5", "fpn", "detection", "segmentation", "classification"}
    assert set(ran) == {"adaptor", *behind}
    decoded = vcmcodec.decode_features(data).tensors["c3"]
    with torch.inference_mode():
        adapted = model.adaptor(decoded)  # type: ignore[attr-defined]
        output = seeing.model.network.back_end({"c3": adapted}, "c3")
    assert seen.classes is not None
    assert max(score.score for score in seen.classes) == pytest.approx(
        float(output.presence.sigmoid().max()), abs=1e-5  # type: ignore[union-attr]
    )  # fmt: skip


def test_writing_needs_no_vision_network_and_reading_says_which(tmp_path: Path) -> None:
    reference = semantic_model.install(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["models"] = [one for one in manifest["models"] if one["profile"] != "vision"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with weights_from(tmp_path):
        data = encode(astronaut(), quality=60)
        assert vcmcodec.decode_features(data).tensors["c3"].numel()
        with pytest.raises(WeightsError, match=f"{reference}, which this model goes with, is not"):
            analyze(data)


def test_groups_depend_on_nothing_outside(found: Features) -> None:
    """Another feature outside a group changes neither its bytes nor its decoded feature."""
    cells = blocks(180, 250)
    grid = found.geometry.padded_height // 16, found.geometry.padded_width // 16
    labels = place_groups(cells.astype(np.int64), found.geometry, grid)
    data = encode(found, groups=cells, digest=True)
    true = found.tensors["c3"]
    for position in range(4):
        inside = torch.from_numpy((labels == position).repeat(2, 0).repeat(2, 1))
        changed = torch.where(inside, true, true.flip(1) * 3 + 1)
        other = Features(found.split, {"c3": changed}, found.geometry, found.model)
        again = encode(other, groups=cells, digest=True)
        mine = {k: v for k, v in substreams(data).items() if k[2] == position and k[0] != 0x80}
        theirs = {k: v for k, v in substreams(again).items() if k[2] == position and k[0] != 0x80}
        assert mine == theirs
        assert {kind for kind, *_ in mine} == {int(Kind.LATENT), int(Kind.DIGEST)}
        assert substreams(again) != substreams(data)
        alone, whole = (vcmcodec.decode_features(data, groups=g).tensors for g in (position, None))
        assert torch.equal(alone["c3"], whole["c3"] * inside)


def test_groups_leave_and_come_back(found: Features) -> None:
    data = encode(found, groups=blocks(180, 250), digest=True)
    parts = [edit.extract(data, groups=[group]) for group in range(4)]
    assert edit.merge(parts) == data
    kept = edit.extract(data, drop_groups=[2], redact=True)
    plain = vcmcodec.decode_features(data, groups=[0, 1, 3])
    assert torch.equal(vcmcodec.decode_features(kept).tensors["c3"], plain.tensors["c3"])
    assert edit.verify(data, deep=True, decode_symbols=decode_symbols).ok
    with feature_codec.Reader(kept) as reader:
        assert 0 < feature_codec.inspect(reader).absent < 1


def test_what_cannot_be_is_refused(found: Features) -> None:
    stranger = Features("c3", found.tensors, found.geometry, "00" * 8)
    with pytest.raises(RequestError, match="of network 0000"):
        encode(stranger)
    with pytest.raises(RequestError, match="no split point"):
        encode(astronaut(), split="fpn")
    with pytest.raises(RequestError, match="must be"):
        encode(Features("c3", {"c3": found.tensors["c3"][:, :5]}, found.geometry, found.model))


def test_a_model_is_bound_to_its_own_encoder() -> None:
    tensors, metadata = semantic_model.tensors("ab" * 8)
    model = semantic.read_model(dict(tensors), dict(metadata))
    assert model.fingerprint.hex() == metadata["fingerprint"]
    assert model.facts.reference == "ab" * 8
    name = "generic.adaptor.leave.bias"
    other = semantic.read_model({**tensors, name: tensors[name] + 1}, dict(metadata))
    assert other.fingerprint == model.fingerprint
    for name in ("generic.network.stem.conv.bias", "generic.filter.gate.bias"):
        changed = {**tensors, name: tensors[name] + 1}
        with pytest.raises(WeightsError, match="encoder's fingerprint"):
            semantic.read_model(changed, dict(metadata))
    for name in ("generic.filter.gate.bias", "generic.adaptor.leave.bias"):
        fewer = {own: value for own, value in tensors.items() if own != name}
        with pytest.raises(WeightsError, match="generic network"):
            semantic.read_model(fewer, dict(metadata))
    with pytest.raises(WeightsError, match="semantic codec"):
        semantic.read_model(dict(tensors), {**metadata, "semantic": "{}"})
