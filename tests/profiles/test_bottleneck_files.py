"""Files of the bottleneck profile: every split point, every task, groups, parts and escapes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import bottleneck_model
import vcmcodec
from photographs import photograph, rewritten, substreams
from vcmcodec import edit, feature_codec, models
from vcmcodec.bitstream.constants import CoderId, Kind, LayerId
from vcmcodec.bitstream.container import Container
from vcmcodec.deep import decode_symbols
from vcmcodec.errors import FormatError, RequestError, TruncatedError, WeightsError
from vcmcodec.machine import analyze
from vcmcodec.nn.bottleneck_codec import MAX_PARAMETERS, Unit, nearest_level
from vcmcodec.nn.bottleneck_tensors import BottleneckModel, pack, unpack
from vcmcodec.profiles import bottleneck
from vcmcodec.profiles.features import place_groups
from vcmcodec.vision.backend import Features
from vcmcodec.vision.network import TASKS, crossing
from weights_folder import weights_from

SPLITS = bottleneck_model.SPLITS


@pytest.fixture(scope="module", autouse=True)
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("weights")
    bottleneck_model.install(folder)
    with weights_from(folder):
        yield folder


def features_at(split: str) -> Features:
    return vcmcodec.features(photograph("astronaut", 180, 250), split=split)


def encode(found: Features, **options: object) -> bytes:
    return vcmcodec.encode(found, profile="bottleneck", **options)


def model() -> BottleneckModel:
    found = models.load_model("bottleneck")
    assert isinstance(found, BottleneckModel)
    return found


def halves(height: int, width: int) -> np.ndarray:
    """Three groups by cell: left, right, and a block on their border."""
    rows, columns = -(-height // 16), -(-width // 16)
    cells = np.zeros((rows, columns), np.uint8)
    cells[:, columns // 2 :] = 1
    cells[rows // 3 : 2 * rows // 3, columns // 3 : 2 * columns // 3] = 2
    return cells


@pytest.mark.parametrize("split", SPLITS)
def test_every_tensor_that_crosses_is_coded(split: str) -> None:
    """What the back end reads comes out of the file's bytes, better at higher rates."""
    found = features_at(split)
    sizes, means = [], []
    for quality in (0, 25, 50, 75, 100):
        data = encode(found, split=split, quality=quality)
        back = vcmcodec.decode_features(data)
        assert set(back.tensors) == set(found.tensors) == set(crossing(split))
        assert all(back.tensors[n].shape == v.shape for n, v in found.tensors.items())
        assert (back.split, back.geometry, back.model) == (split, found.geometry, found.model)
        sizes.append(len(data))
        errors = [(back.tensors[n] - v).square().mean() / v.var() for n, v in found.tensors.items()]
        means.append(float(torch.stack(errors).mean()))
    assert sizes == sorted(set(sizes))
    assert means[0] > 1.05 * means[-1]
    assert means[-1] < 0.7


@pytest.mark.parametrize("split", SPLITS)
def test_a_task_reads_only_its_layers(split: str) -> None:
    found = features_at(split)
    whole = encode(found, split=split, digest=True)
    for task in TASKS:
        needed = set(crossing(split, [task]))
        one = encode(found, split=split, tasks=[task], digest=True)
        assert edit.extract(whole, tasks=[task]) == one
        part = vcmcodec.decode_features(one)
        assert set(part.tensors) == needed
        every = vcmcodec.decode_features(whole)
        assert all(torch.equal(part.tensors[n], every.tensors[n]) for n in needed)


def test_a_file_for_one_task_cannot_do_others() -> None:
    """At fpn classification reads less than the others, and its file holds no more."""
    found = features_at("fpn")
    small = encode(found, split="fpn", tasks=["classification"])
    assert len(small) < 0.6 * len(encode(found, split="fpn"))
    assert {e.layer for e in Container.read(small).entries} == {LayerId.BASE}
    with pytest.raises(RequestError, match="not written for detection"):
        analyze(small, tasks=["detection"])
    seen = analyze(small)  # all tasks: all that the file was written for
    assert seen.classes is not None
    assert seen.objects is None
    assert seen.label_map is None


def test_features_that_tasks_do_not_read_may_be_missing() -> None:
    found = features_at("fpn")
    names = crossing("fpn", ["classification"])
    less = Features("fpn", {n: found.tensors[n] for n in names}, found.geometry, found.model)
    want = encode(found, split="fpn", tasks=["classification"])
    assert encode(less, split="fpn", tasks=["classification"]) == want
    with pytest.raises(RequestError, match="needs the tensor"):
        encode(less, split="fpn")


def test_the_rest_of_the_network_goes_on() -> None:
    found = features_at("c4")
    data = encode(found, quality=100)
    assert Container.read(data).header.coder == CoderId.RANGE_STATIC
    seen = analyze(data, score=0.1)
    decoded = vcmcodec.decode_features(data)
    backend = bottleneck_model.backend()
    wanted = backend.results(backend.rest(decoded, backend.tasks), decoded.geometry, 0.1)
    assert seen.objects == wanted.objects
    assert seen.classes == wanted.classes
    assert np.array_equal(seen.label_map.labels, wanted.label_map.labels)  # type: ignore[union-attr]


def test_every_value_can_be_coded() -> None:
    """Values far outside all tables escape, and come back as exactly these symbols."""
    found = features_at("c3")
    wild = found.tensors["c3"].clone()
    wild[0, :, 3, 4] = 1e6
    wild[0, 5] = -300.0
    data = encode(Features("c3", {"c3": wild}, found.geometry, found.model), split="c3")
    back = vcmcodec.decode_features(data).tensors["c3"]
    assert torch.isfinite(back).all()
    source = model()
    labels = np.zeros((found.geometry.padded_height // 16, found.geometry.padded_width // 16))
    latent = bottleneck.latents_of(source.codec, "c3", {"c3": wild}, labels.astype(np.int64))["c3"]
    symbols = bottleneck.quantise(source.codec, "c3", "c3", latent, 5000)
    tables = source.tables_of("c3_c3", 5000)
    assert int(abs(symbols).max()) > 1000 > int(tables.highs.max())
    digest = encode(
        Features("c3", {"c3": wild}, found.geometry, found.model), split="c3", digest=True
    )
    assert torch.equal(vcmcodec.decode_features(digest).tensors["c3"], back)


@pytest.mark.parametrize("split", ["c5", "fpn"])
def test_groups_depend_on_nothing_outside(split: str) -> None:
    """Other features outside a group change neither its bytes nor its decoded features."""
    found, cells = features_at(split), halves(180, 250)
    grid = found.geometry.padded_height // 16, found.geometry.padded_width // 16
    labels = place_groups(cells.astype(np.int64), found.geometry, grid)
    data = encode(found, split=split, groups=cells, digest=True)
    whole = vcmcodec.decode_features(data).tensors
    for position in range(3):
        masks = {
            name: _mask(labels == position, value.shape[2]) for name, value in found.tensors.items()
        }
        changed = {n: torch.where(masks[n], v, v.flip(1) * 3 + 1) for n, v in found.tensors.items()}
        other = Features(split, changed, found.geometry, found.model)
        again = encode(other, split=split, groups=cells, digest=True)
        mine, theirs = (
            {k: v for k, v in substreams(one).items() if k[2] == position and k[0] != 0x80}
            for one in (data, again)
        )
        assert mine == theirs
        assert {kind for kind, *_ in mine} == {int(Kind.LATENT), int(Kind.DIGEST)}
        assert substreams(again) != substreams(data)
        alone = vcmcodec.decode_features(data, groups=position).tensors
        for name, value in alone.items():
            assert torch.equal(value, whole[name] * masks[name]), name


def _mask(inside: np.ndarray, rows: int) -> torch.Tensor:
    """Positions at stride 16 as cells of a tensor; a coarse cell is its top left position's."""
    if rows == 2 * inside.shape[0]:
        return torch.from_numpy(inside.repeat(2, 0).repeat(2, 1))
    step = inside.shape[0] // rows
    return torch.from_numpy(np.ascontiguousarray(inside[::step, ::step]))


def test_groups_leave_and_come_back() -> None:
    found = features_at("fpn")
    data = encode(found, split="fpn", groups=halves(180, 250), digest=True)
    parts = [edit.extract(data, groups=[group]) for group in (0, 1, 2)]
    assert edit.merge(parts) == data
    kept = edit.extract(data, drop_groups=[2], redact=True)
    shown, plain = vcmcodec.decode_features(kept), vcmcodec.decode_features(data, groups=[0, 1])
    assert all(torch.equal(shown.tensors[n], v) for n, v in plain.tensors.items())
    assert edit.verify(data, deep=True, decode_symbols=decode_symbols).ok


def test_wrong_symbols_and_damage_are_found() -> None:
    found = features_at("fpn")
    data = encode(found, split="fpn", digest=True)
    top = max(layer for _, layer, *_ in substreams(data))
    digest = (int(Kind.DIGEST), int(top), 0, 0)
    with pytest.raises(FormatError, match="symbols of layer"):
        vcmcodec.decode_features(rewritten(data, [(digest, bytes(8))]))
    latent = (int(Kind.LATENT), 0, 0, 0)
    run = substreams(data)[latent]
    with pytest.raises(FormatError):
        vcmcodec.decode_features(rewritten(data, [(latent, run[:-3])]))
    report = edit.verify(
        rewritten(data, [(latent, run[:-3])]), deep=True, decode_symbols=decode_symbols
    )
    assert not report.ok


def test_a_file_that_is_cut_off_gives_what_is_whole() -> None:
    found = features_at("fpn")
    data = encode(found, split="fpn")
    cut = data[:-4]
    with pytest.warns(vcmcodec.VcmWarning, match="cut off"):
        seen = vcmcodec.decode_features(cut, tasks=["classification"])
    whole = vcmcodec.decode_features(data, tasks=["classification"])
    assert all(torch.equal(seen.tensors[n], v) for n, v in whole.tensors.items())
    with feature_codec.Reader(cut) as reader:
        decoded = feature_codec.inspect(reader)
    assert any("layer base only" in note for note in decoded.warnings)
    with pytest.raises(TruncatedError):
        vcmcodec.decode_features(data[: Container.read(data).header_bytes + 5])


def test_a_target_is_met() -> None:
    found = features_at("c4")
    high, low = (len(encode(found, quality=quality)) for quality in (100, 0))
    target = (high + low) // 2
    assert 0.85 * target < len(encode(found, target_size=target)) <= target


def test_units_are_small_and_know_their_network() -> None:
    shipped = model()
    full = bottleneck.build(
        bottleneck.shape_for(bottleneck_model.backend().model.network.config), ""
    )
    for unit in (*shipped.codec.units.values(), *full.units.values()):
        assert isinstance(unit, Unit)
        assert sum(value.numel() for value in unit.parameters()) <= MAX_PARAMETERS
    found = features_at("c4")
    stranger = Features("c4", found.tensors, found.geometry, "00" * 8)
    with pytest.raises(RequestError, match="of network 0000"):
        encode(stranger)
    with pytest.raises(RequestError, match="no split point stem"):
        vcmcodec.encode(photograph("coffee", 64, 64), profile="bottleneck", split="stem")
    with pytest.raises(RequestError, match="does not serve human"):
        encode(found, tasks=["human"])


def test_levels_have_their_own_tables() -> None:
    assert [nearest_level(level, 5) for level in (0, 1249, 1250, 5000, 8749, 8750, 10000)] == [
        0, 0, 1, 2, 3, 4, 4,
    ]  # fmt: skip
    found = model()
    every = found.tables["c4_c4"]
    channels = found.codec.unit("c4", "c4").shape.latent
    assert len(every) == bottleneck.LEVELS * channels
    last = found.tables_of("c4_c4", 10000)
    assert all(np.array_equal(a, b) for a, b in zip(last.cdfs, every.cdfs[-channels:], strict=True))


def test_weights_that_were_changed_are_refused() -> None:
    found = model()
    tensors, metadata = pack(found.codec, found.tables)
    assert unpack(tensors, metadata).fingerprint == found.fingerprint
    gains = next(name for name in tensors if name.endswith("log_gain"))
    with pytest.raises(WeightsError, match="fingerprint"):
        unpack({**tensors, gains: tensors[gains] + 1}, metadata)
    with pytest.raises(WeightsError, match="not the weights"):
        unpack({n: v for n, v in tensors.items() if n != gains}, metadata)
    with pytest.raises(WeightsError, match="must hold integers"):
        unpack({**tensors, gains: tensors[gains].float()}, metadata)
    other = metadata | {"vision": "ff" * 8}
    with pytest.raises(WeightsError, match="fingerprint"):
        unpack(tensors, other)
    unit = dataclasses.replace(found.codec.shape.units[0], latent=5000)
    shape = dataclasses.replace(found.codec.shape, units=(unit,))
    with pytest.raises(WeightsError, match="parameters"):
        bottleneck.build(shape, "")
