"""Files of the pyramid profile: features in, features and results out, parts and groups between."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

import pyramid_model
import vcmcodec
from photographs import astronaut, photograph, rewritten, substreams
from vcmcodec import edit, feature_codec
from vcmcodec.bitstream.constants import FIRST_READ_BYTES, Kind, LayerId
from vcmcodec.bitstream.container import Container
from vcmcodec.bitstream.limits import Limits
from vcmcodec.bitstream.parameters import FeatureParameters
from vcmcodec.deep import decode_symbols
from vcmcodec.errors import FormatError, LimitError, RequestError, TruncatedError, WeightsError
from vcmcodec.machine import analyze
from vcmcodec.profiles.features import place_groups
from vcmcodec.vision import feature_files
from vcmcodec.vision.backend import Features
from vcmcodec.vision.geometry import InputGeometry
from vcmcodec.vision.network import TASKS, crossing
from weights_folder import weights_from


@pytest.fixture(scope="module", autouse=True)
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("weights")
    pyramid_model.install(folder)
    with weights_from(folder):
        yield folder


@pytest.fixture(scope="module")
def found() -> Features:
    return vcmcodec.features(photograph("astronaut", 180, 250))


def halves(height: int, width: int) -> np.ndarray:
    """Three groups by cell: left, right, and a block on their border."""
    rows, columns = -(-height // 16), -(-width // 16)
    cells = np.zeros((rows, columns), np.uint8)
    cells[:, columns // 2 :] = 1
    cells[rows // 3 : 2 * rows // 3, columns // 3 : 2 * columns // 3] = 2
    return cells


def errors(one: Features, other: Features) -> dict[str, float]:
    """Squared error of each tensor, relative to its variance."""
    out = {}
    for name, value in other.tensors.items():
        away = (one.tensors[name] - value).square().mean()
        out[name] = float(away / value.var())
    return out


def test_features_come_back_better_at_higher_quality(found: Features) -> None:
    sizes, means = [], []
    for quality in (5, 50, 95):
        data = vcmcodec.encode(found, profile="pyramid", quality=quality)
        back = vcmcodec.decode_features(data)
        assert back.split == found.split
        assert back.geometry == found.geometry
        assert back.model == found.model
        assert {n: v.shape for n, v in back.tensors.items()} == {
            n: v.shape for n, v in found.tensors.items()
        }
        sizes.append(len(data))
        means.append(np.mean(list(errors(back, found).values())))
    assert sizes == sorted(sizes)
    assert means == sorted(means, reverse=True)
    assert means[0] > 1.2 * means[-1]
    assert means[-1] < 0.6


def test_a_picture_and_its_features_make_the_same_file(found: Features, tmp_path: Path) -> None:
    picture = vcmcodec.encode(photograph("astronaut", 180, 250), profile="pyramid", digest=True)
    assert picture == vcmcodec.encode(found, profile="pyramid", digest=True)
    path = tmp_path / "feats.safetensors"
    path.write_bytes(feature_files.pack(found))
    assert picture == vcmcodec.encode(path, profile="pyramid", digest=True)
    assert picture == vcmcodec.encode(path.read_bytes(), profile="pyramid", digest=True)


def test_feature_files_lose_nothing(found: Features) -> None:
    data = feature_files.pack(found)
    back = feature_files.read(data)
    assert (back.split, back.geometry, back.model) == (found.split, found.geometry, found.model)
    assert all(torch.equal(back.tensors[n], v) for n, v in found.tensors.items())
    assert feature_files.pack(back) == data


@pytest.mark.parametrize("cut", [0, 7, 9, 60, -1])
def test_damaged_feature_files_are_one_error(found: Features, cut: int) -> None:
    data = feature_files.pack(found)[:cut]
    with pytest.raises(RequestError, match="feature"):
        feature_files.read(data)


def test_tasks_rebuild_what_they_read(found: Features) -> None:
    data = vcmcodec.encode(found, profile="pyramid")
    for task in TASKS:
        names = set(vcmcodec.decode_features(data, tasks=[task]).tensors)
        assert names == set(crossing("fpn", [task]))
        assert names <= set(found.tensors)
    one = vcmcodec.encode(found, profile="pyramid", tasks=["classification"])
    read = set(vcmcodec.decode_features(one).tensors)
    assert read == set(crossing("fpn", ["classification"])) < set(found.tensors)
    assert edit.extract(data, tasks=["classification"]) == one
    whole = vcmcodec.decode_features(data)
    part = vcmcodec.decode_features(data, tasks=["detection"])
    assert all(torch.equal(whole.tensors[n], v) for n, v in part.tensors.items())


def test_the_rest_of_the_network_goes_on(found: Features) -> None:
    data = vcmcodec.encode(found, profile="pyramid", quality=100)
    seen = analyze(data, score=0.1)
    assert (seen.height, seen.width) == (180, 250)
    assert seen.label_map is not None
    assert seen.classes is not None
    decoded = vcmcodec.decode_features(data)
    backend = pyramid_model.backend()
    wanted = backend.results(backend.rest(decoded, backend.tasks), decoded.geometry, 0.1)
    assert seen.objects == wanted.objects
    assert seen.classes == wanted.classes
    assert np.array_equal(seen.label_map.labels, wanted.label_map.labels)  # type: ignore[union-attr]
    only = analyze(data, tasks=["classification"])
    assert only.objects is None
    assert only.label_map is None


def test_groups_depend_on_nothing_outside(found: Features) -> None:
    """Other features outside a group change neither its bytes nor its decoded features."""
    cells = halves(180, 250)
    grid = found.geometry.padded_height // 16, found.geometry.padded_width // 16
    labels = place_groups(cells.astype(np.int64), found.geometry, grid)
    data = vcmcodec.encode(found, profile="pyramid", groups=cells, digest=True)
    for position in range(3):
        inside = torch.from_numpy(labels == position)
        changed = {}
        for name, value in found.tensors.items():
            if value.shape[2] == 2 * grid[0]:
                mask = inside.repeat_interleave(2, 0).repeat_interleave(2, 1)
            elif value.shape[2] == grid[0]:
                mask = inside
            else:  # a coarse cell is seen by each of its four positions
                mask = inside.unfold(0, 2, 2).unfold(1, 2, 2).any(-1).any(-1)
            changed[name] = torch.where(mask, value, value.flip(1) * 3 + 1)
        other = Features(found.split, changed, found.geometry, found.model)
        again = vcmcodec.encode(other, profile="pyramid", groups=cells, digest=True)
        mine = {k: v for k, v in substreams(data).items() if k[2] == position and k[0] != 0x80}
        theirs = {k: v for k, v in substreams(again).items() if k[2] == position and k[0] != 0x80}
        assert mine == theirs
        assert {kind for kind, *_ in mine} == {int(Kind.LATENT), int(Kind.DIGEST)}
        assert substreams(again) != substreams(data)
        alone, whole = (vcmcodec.decode_features(data, groups=g).tensors for g in (position, None))
        for name, value in alone.items():
            step = value.shape[2]
            if step == 2 * grid[0]:
                mask = inside.repeat_interleave(2, 0).repeat_interleave(2, 1)
            else:
                mask = inside[:: grid[0] // step, :: grid[0] // step]
            assert torch.equal(value, whole[name] * mask), name


def test_groups_leave_and_come_back(found: Features) -> None:
    data = vcmcodec.encode(found, profile="pyramid", groups=halves(180, 250), digest=True)
    parts = [edit.extract(data, groups=[group]) for group in (0, 1, 2)]
    assert edit.merge(parts) == data
    kept = edit.extract(data, drop_groups=[2], redact=True)
    shown = vcmcodec.decode_features(kept)
    plain = vcmcodec.decode_features(data, groups=[0, 1])
    assert all(torch.equal(shown.tensors[n], v) for n, v in plain.tensors.items())
    with feature_codec.Reader(kept) as reader:
        decoded = feature_codec.inspect(reader)
    assert decoded.groups == (0, 1)
    assert 0 < decoded.absent < 1
    assert not decoded.present.all()


def test_a_group_below_the_latents_grid_is_told() -> None:
    cells = np.zeros((48, 60), np.uint8)
    cells[20, 30] = 1
    picture = np.asarray(photograph("astronaut", 384, 480)).repeat(2, 0).repeat(2, 1)
    options = feature_codec.EncodeOptions(profile="pyramid")
    made = feature_codec.encode_picture(picture, options, groups=cells)
    assert any("too small" in note for note in made.warnings)
    with pytest.raises(RequestError, match="nothing of group 1"):
        vcmcodec.decode_features(made.data, groups=[1])
    assert vcmcodec.decode_features(made.data).tensors["p3"].abs().max() > 0


def test_deep_verification_finds_wrong_symbols(found: Features) -> None:
    data = vcmcodec.encode(found, profile="pyramid", groups=halves(180, 250), digest=True)
    assert edit.verify(data, deep=True, decode_symbols=decode_symbols).ok
    digests = {k: v for k, v in substreams(data).items() if k[0] == Kind.DIGEST}
    key = next(k for k in digests if k[2] == 1)
    wrong = rewritten(data, [(key, bytes(8))])
    report = edit.verify(wrong, deep=True, decode_symbols=decode_symbols)
    assert [finding.group for finding in report.findings if finding.problem] == [1]
    with pytest.raises(FormatError, match="symbols"):
        vcmcodec.decode_features(wrong)
    assert vcmcodec.decode_features(wrong, groups=[0, 2])


def test_a_cut_source_without_a_size_gives_no_empty_features(found: Features) -> None:
    """What is cut off must be missed whether or not the source knows where it ends."""
    data = vcmcodec.encode(found, profile="pyramid", quality=100)
    cut = data[: (FIRST_READ_BYTES + len(data)) // 2]
    assert len(cut) > FIRST_READ_BYTES
    for source in (cut, lambda offset, length: cut[offset : offset + length]):
        with pytest.raises(TruncatedError, match="within the base layer"):
            vcmcodec.decode_features(source)
        with pytest.raises(TruncatedError, match="within the base layer"):
            analyze(source)


def test_the_header_says_where_the_network_was_cut(found: Features) -> None:
    data = vcmcodec.encode(found, profile="pyramid", groups=halves(180, 250))
    container = Container.read(data)
    assert {e.layer for e in container.entries} == {LayerId.BASE}
    assert container.header.tile == 0
    own = FeatureParameters.unpack(container.header.parameters)
    assert (own.split, own.own) == ("fpn", b"")
    assert (own.scaled_height, own.scaled_width) == (
        found.geometry.scaled_height, found.geometry.scaled_width,
    )  # fmt: skip


def test_a_target_is_met(found: Features) -> None:
    high = len(vcmcodec.encode(found, profile="pyramid", quality=100))
    low = len(vcmcodec.encode(found, profile="pyramid", quality=0))
    target = (high + low) // 2
    size = len(vcmcodec.encode(found, profile="pyramid", target_size=target))
    assert 0.9 * target < size <= target


def test_what_cannot_be_is_refused(found: Features) -> None:
    data = vcmcodec.encode(found, profile="pyramid")
    with pytest.raises(RequestError, match="holds features"):
        vcmcodec.decode(data)
    picture = vcmcodec.encode(astronaut(48, 64), tasks=["detection"])
    with pytest.raises(RequestError, match="holds a picture"):
        vcmcodec.decode_features(picture)
    with pytest.raises(RequestError, match="codes pictures"):
        vcmcodec.encode(found)
    with pytest.raises(RequestError, match="no split point"):
        vcmcodec.encode(astronaut(48, 64), split="fpn")
    with pytest.raises(RequestError, match="no split point"):
        vcmcodec.encode(found, profile="pyramid", split="c4")
    with pytest.raises(RequestError, match="does not serve human"):
        vcmcodec.encode(found, profile="pyramid", tasks=["human"])
    with pytest.raises(RequestError, match="not both"):
        vcmcodec.encode(found, profile="pyramid", quality=3, base_quality=4)
    with pytest.raises(RequestError, match="auto needs the picture"):
        vcmcodec.encode(found, profile="pyramid", groups="auto")
    with pytest.raises(RequestError, match="texts"):
        vcmcodec.encode(found, profile="pyramid", text={"a": "b"})
    stranger = Features(found.split, found.tensors, found.geometry, "00" * 8)
    with pytest.raises(RequestError, match="of network 0000"):
        vcmcodec.encode(stranger, profile="pyramid")
    less = {n: v for n, v in found.tensors.items() if n != "p4"}
    with pytest.raises(RequestError, match="needs the tensor p4"):
        vcmcodec.encode(Features("fpn", less, found.geometry, found.model), profile="pyramid")
    shifted = InputGeometry.scaled(180, 250, 100, 288)
    with pytest.raises(RequestError, match="must be"):
        vcmcodec.encode(Features("fpn", found.tensors, shifted, found.model), profile="pyramid")


def test_a_file_of_another_network_is_refused(found: Features, monkeypatch) -> None:
    data = vcmcodec.encode(found, profile="pyramid")
    monkeypatch.setattr("vcmcodec.pretrained.find", _without_vision)
    with pytest.raises(WeightsError, match=r"vision network .* is not installed"):
        analyze(data)


def _without_vision(**asked: object) -> object:
    if asked.get("profile") == "vision":
        raise WeightsError("no model for profile vision")
    from vcmcodec import pretrained

    return next(m for m in pretrained.models() if m.profile == asked["profile"])


def test_features_of_a_picture_beyond_the_limits_are_refused(found: Features) -> None:
    """They made a file that no reader took, or ended in a MemoryError."""
    for side, limits in ((2**30, None), (200, Limits(max_pixels=200 * 200))):
        geometry = dataclasses.replace(found.geometry, height=side, width=side)
        with pytest.raises(LimitError, match="--max-pixels"):
            vcmcodec.encode(
                dataclasses.replace(found, geometry=geometry), profile="pyramid", limits=limits
            )


@pytest.mark.parametrize("height", ["1e999", "[" * 100_000], ids=["infinite", "deep"])
def test_sizes_that_are_no_numbers_are_one_error(found: Features, height: str) -> None:
    about = json.dumps({"format": feature_files.FORMAT, "height": 0}).replace("0}", height + "}")
    tensors = {name: value.contiguous() for name, value in found.tensors.items()}
    with pytest.raises(RequestError, match="is not a feature file"):
        feature_files.read(save(tensors, {feature_files.KEY: about}))
