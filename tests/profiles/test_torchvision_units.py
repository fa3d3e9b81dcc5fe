"""Units on a torchvision classifier: training, files and results, with weights nobody changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors import safe_open

import vcmcodec
from photographs import photograph
from torchvision_networks import save_random, torchvision_models
from vcmcodec import edit, machine, models
from vcmcodec.bitstream.constants import LayerId
from vcmcodec.bitstream.container import Container
from vcmcodec.cli.train_bottleneck import command as train
from vcmcodec.deep import decode_symbols
from vcmcodec.errors import RequestError, WeightsError
from vcmcodec.nn.bottleneck_codec import MAX_PARAMETERS, Unit
from vcmcodec.profiles import bottleneck, features
from vcmcodec.training import bottleneck_run
from vcmcodec.training.bottleneck import BottleneckRecipe, Draw, Learned, code, distortion, loss
from vcmcodec.vision.backend import open_backend
from vcmcodec.vision.cut_classifier import CutClassifier, fingerprint
from vcmcodec.vision.torchvision_backend import TorchvisionBackend

SPLITS = ("layer3", "layer1")
RGB = photograph("astronaut", 180, 250)


@dataclass(frozen=True)
class Made:
    """A model, the user's weights that it goes with, and what they were before it was made."""

    name: str
    weights: Path
    file_hash: str
    mark: str
    other: str


def network_of(name: str) -> TorchvisionBackend:
    backend = features.given_network(name, open_backend(name).fingerprint, "cpu")
    assert isinstance(backend, TorchvisionBackend)
    return backend


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("coffee", "chelsea"):
        Image.fromarray(photograph(name, 270, 300, 20, 40)).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module", autouse=True)
def made(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Iterator[Made]:
    """Train on random weights by the command, and install what comes of it."""
    folder = tmp_path_factory.mktemp("units")
    path, stranger = (save_random("resnet18", folder, seed) for seed in (0, 1))
    name, before = f"torchvision:resnet18={path}", hashlib.sha256(path.read_bytes()).hexdigest()
    mark = open_backend(name).fingerprint
    asked = [
        "--data", str(pictures), "--run", str(folder / "run"), "--vision", name,
        "--splits", ",".join(SPLITS), "--steps", "2", "--batch", "1", "--crops", "3",
        "--export", str(folder / "made"), "--model", "mine", "-q",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bottleneck_run, "PCA_CROPS", 6)
        ran = CliRunner().invoke(train, asked, standalone_mode=False, catch_exceptions=False)
        assert ran.return_value == 0
        patch.setenv("VCMCODEC_WEIGHTS", str(folder / "made"))
        models._load.cache_clear()
        yield Made(name, path, before, mark, f"torchvision:resnet18={stranger}")
    models._load.cache_clear()
    features._open_once.cache_clear()


def encode(made: Made, **options: Any) -> bytes:
    return vcmcodec.encode(RGB, profile="bottleneck", vision=made.name, **options)


def test_the_weights_are_the_same_bytes_after_training_and_use(made: Made) -> None:
    """Hash test: the file, and the tensors in the memory of the network that was used."""
    for split in SPLITS:
        vcmcodec.analyze(encode(made, split=split), vision=made.name)
    assert hashlib.sha256(made.weights.read_bytes()).hexdigest() == made.file_hash
    used, fresh = network_of(made.name), torch.load(made.weights, weights_only=True)
    assert fingerprint("resnet18", used.network) == made.mark == used.fingerprint
    state = used.network.state_dict()
    assert state.keys() == fresh.keys()
    assert all(torch.equal(value, fresh[key]) for key, value in state.items())


def test_training_leaves_the_network_in_its_memory_alone(made: Made, pictures: Path) -> None:
    """The very object that a run trains with, and no unit without movement."""
    frozen = bottleneck_run.open_network(made.name, "cpu")
    before = {k: v.clone() for k, v in frozen.network.state_dict().items()}
    learned = Learned(bottleneck_run.build(frozen, ("layer4",)))
    images = torch.rand(2, 3, 64, 64)
    eyes = bottleneck_run.watcher(frozen, [images])
    clean = eyes.clean(images)
    same, _ = eyes.distance(eyes.going_on({"layer2": clean.features["layer2"]}), clean)
    assert float(same) < 1e-3
    tensors = {"layer4": clean.features["layer4"].float()}
    plan = Draw("layer4", 5000, np.zeros((4, 4), np.int64))
    coded = code(learned, tensors, plan, noisy=True)
    distance, parts = distortion(eyes, coded, clean, None)
    assert set(parts) == {"layer4", "classes"}
    loss(learned.codec, coded, distance, plan, images.numel() // 3).backward()  # type: ignore[no-untyped-call]
    for name, value in learned.codec.named_parameters():
        if name.endswith("leave.weight"):
            assert value.grad is not None
            assert float(value.grad.abs().max()) > 0
    after = frozen.network.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert not any(
        value.requires_grad or value.grad is not None for value in frozen.network.parameters()
    )


def test_training_brings_the_loss_down(made: Made, pictures: Path, tmp_path: Path) -> None:
    recipe = BottleneckRecipe(("layer3",), crop=64, batch=2, steps=16, warm_up=4, grouped=0)
    frozen = bottleneck_run.open_network(made.name, "cpu")
    views = bottleneck_run.open_views([pictures], None, frozen, 64)
    images, _ = views(6, np.random.default_rng(5))
    eyes = bottleneck_run.watcher(frozen, [images])
    clean = eyes.clean(images)

    def score(until: int) -> float:
        learned = bottleneck_run.train(
            [pictures], tmp_path / "run", recipe, lambda line: None, vision=made.name, until=until
        )
        total = 0.0
        for level in (1000, 5000, 9000):
            plan = Draw("layer3", level, np.zeros((4, 4), np.int64))
            with torch.no_grad():
                tensors = {"layer3": clean.features["layer3"].float()}
                coded = code(learned, tensors, plan, noisy=False)
                distance, _ = distortion(eyes, coded, clean, None)
                total += float(loss(learned.codec, coded, distance, plan, images.numel() // 3))
        return total

    start = score(0)
    assert score(recipe.steps) < 0.99 * start


@pytest.mark.parametrize("split", SPLITS)
def test_the_users_network_goes_on_from_the_file(made: Made, split: str) -> None:
    """Classes are those of the user's network on the decoded tensor, nearer at higher rates."""
    network = network_of(made.name)
    found = network.head(RGB, split)
    errors = []
    for quality in (0, 50, 100):
        data = encode(made, split=split, quality=quality)
        header = Container.read(data).header
        assert [info.task.name for info in header.tasks] == ["CLASSIFICATION"]
        assert {entry.layer for entry in Container.read(data).entries} == {LayerId.BASE}
        back = vcmcodec.decode_features(data)
        assert (back.split, back.model, back.geometry) == (split, made.mark, found.geometry)
        assert back.tensors[split].shape == found.tensors[split].shape
        errors.append(float((back.tensors[split] - found.tensors[split]).square().mean()))
        seen = vcmcodec.analyze(data, vision=made.name)
        raw = network.rest(back, network.tasks)
        assert seen.classes == network.results(raw, back.geometry, 0.3).classes
        assert seen.objects is None
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1.05 * errors[-1]


def test_other_weights_are_refused_by_their_fingerprint(made: Made) -> None:
    stranger = open_backend(made.other).fingerprint
    data = encode(made)
    for call in (
        lambda: vcmcodec.encode(RGB, profile="bottleneck", vision=made.other),
        lambda: vcmcodec.analyze(data, vision=made.other),
    ):
        with pytest.raises(WeightsError, match=f"fingerprint {stranger}, not {made.mark}"):
            call()
    for call in (
        lambda: vcmcodec.encode(RGB, profile="bottleneck"),
        lambda: vcmcodec.analyze(data),
    ):
        with pytest.raises(WeightsError, match="--vision torchvision:resnet18=FILE"):
            call()
    frozen = bottleneck_run.open_network(made.other, "cpu")
    assert frozen.fingerprint == stranger


def test_both_commands_take_the_users_network(made: Made, tmp_path: Path) -> None:
    from vcmcodec.cli.main import vcm

    picture, file = tmp_path / "a.png", tmp_path / "a.vcm"
    Image.fromarray(RGB).save(picture)

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(vcm, [str(argument) for argument in arguments])

    encoding = ("encode", picture, "-o", file, "--profile", "bottleneck", "--split", "layer3")
    for extra in ((), ("--vision", made.other)):
        refused = run(*encoding, *extra)
        assert refused.exit_code == 1
        assert refused.stderr.count("\n") == 1
        assert made.mark in refused.stderr
        assert not file.exists()
    assert run(*encoding, "--vision", made.name).exit_code == 0
    assert file.read_bytes() == encode(made, split="layer3")
    seen = run("analyze", file, "--vision", made.name, "--json")
    assert seen.exit_code == 0, seen.stderr
    told = {c["label"]: c["score"] for c in json.loads(seen.stdout)["classes"]}
    wanted = vcmcodec.analyze(file, vision=made.name).classes
    assert wanted is not None
    assert told[wanted[0].label] == pytest.approx(wanted[0].score, abs=1e-4)
    assert run("analyze", picture, "--vision", made.name).exit_code == 1


def test_what_a_classifier_cannot_do_is_refused(made: Made, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="does not do detection"):
        encode(made, tasks=["detection"])
    with pytest.raises(RequestError, match="not written for detection"):
        vcmcodec.analyze(encode(made), tasks=["detection"], vision=made.name)
    with pytest.raises(RequestError, match="codes no split point layer2"):
        encode(made, split="layer2")
    with pytest.raises(RequestError, match="needs no vision network"):
        vcmcodec.encode(RGB, vision=made.name)
    frozen = bottleneck_run.open_network(made.name, "cpu")
    with pytest.raises(RequestError, match="no split point c4; it has stem, layer1"):
        bottleneck_run.build(frozen, ("c4",))
    with pytest.raises(RequestError, match="give photographs"):
        bottleneck_run.open_views([], tmp_path / "labels.json", frozen, 64)
    with pytest.raises(RequestError, match="a network of its own"):
        machine.analyze(vcmcodec.encode(RGB[:64, :64], tasks=["detection"]), vision=made.name)


def test_features_that_were_taken_before_need_no_weights(made: Made) -> None:
    found = vcmcodec.features(RGB, split="layer3", model=made.name)
    assert found.model == made.mark
    data = vcmcodec.encode(found, profile="bottleneck")
    assert data == encode(made, split="layer3")
    assert edit.extract(data, tasks=["classification"]) == data
    assert edit.verify(data, deep=True, decode_symbols=decode_symbols).ok


def test_groups_of_a_tensor_at_stride_4_are_kept_apart(made: Made) -> None:
    """What another group holds changes nothing, and absent cells of stride 4 come out as zero."""
    cells = np.zeros((12, 16), np.uint8)
    cells[:, 8:] = 1
    found = vcmcodec.features(RGB, split="layer1", model=made.name)
    data = vcmcodec.encode(found, profile="bottleneck", groups=cells)
    whole = vcmcodec.decode_features(data).tensors["layer1"]
    left = vcmcodec.decode_features(data, groups=0).tensors["layer1"]
    shown = left.abs().sum((0, 1, 2)) > 0
    edge = int(shown.sum())
    assert edge % 4 == 0
    assert abs(edge - 28) <= 4  # half of 224 pixels, in cells of stride 4
    assert bool(shown[:edge].all())
    assert torch.equal(left[..., :edge], whole[..., :edge])
    changed = found.tensors["layer1"].clone()
    changed[..., edge:] = 3 - changed[..., edge:]
    other = type(found)("layer1", {"layer1": changed}, found.geometry, found.model)
    again = vcmcodec.encode(other, profile="bottleneck", groups=cells)
    assert edit.extract(again, groups=[0]) == edit.extract(data, groups=[0])
    assert again != data


def test_the_model_says_which_network_it_goes_with(made: Made, tmp_path: Path) -> None:
    line = json.loads((made.weights.parent / "made" / "manifest.json").read_text())["models"][0]
    assert (line["network"], line["tasks"]) == (made.mark, ["classification"])
    assert line["splits"] == list(SPLITS)
    with safe_open(made.weights.parent / "made" / line["file"], "pt") as file:
        about = file.metadata()
    assert (about["network"], about["vision"]) == ("torchvision:resnet18", made.mark)


def test_a_fingerprint_is_of_the_weights_and_not_of_their_file(made: Made, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = torch.load(made.weights, weights_only=True)
    save_file(state, tmp_path / "same.safetensors")
    again = open_backend(f"torchvision:resnet18={tmp_path / 'same.safetensors'}")
    assert again.fingerprint == made.mark
    state["layer3.0.conv1.weight"][0, 0, 0, 0] += 1e-3
    torch.save(state, tmp_path / "changed.pth")
    assert open_backend(f"torchvision:resnet18={tmp_path / 'changed.pth'}").fingerprint != made.mark


@pytest.mark.parametrize(
    ("name", "split"), [("mobilenet_v2", "features13"), ("mobilenet_v3_small", "features")]
)
def test_mobilenets_have_units_at_their_features(
    name: str, split: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bottleneck_run, "PCA_CROPS", 6)
    vision = f"torchvision:{name}={save_random(name, tmp_path)}"
    recipe = BottleneckRecipe((split,), crop=64, batch=1, steps=2, warm_up=1, grouped=0)
    learned = bottleneck_run.train(
        [pictures], tmp_path / "run", recipe, lambda line: None, vision=vision
    )
    (unit,) = learned.codec.shape.units
    assert (unit.stride, unit.layer) == (16 if split == "features13" else 32, 0)
    assert learned.codec.network == f"torchvision:{name}"
    assert all(bool(torch.isfinite(value).all()) for value in learned.state_dict().values())


def test_units_stay_small_where_tensors_are_wide() -> None:
    network = CutClassifier(torchvision_models().resnet50(weights=None))
    shape = bottleneck.classifier_shape_for(network.points(), network.splits)
    assert {unit.name: (unit.channels, unit.stride) for unit in shape.units} == {
        "stem": (64, 4), "layer1": (256, 4), "layer2": (512, 8), "layer3": (1024, 16),
        "layer4": (2048, 32),
    }  # fmt: skip
    codec = bottleneck.build(shape, "00" * 8, "torchvision:resnet50")
    for unit in codec.units.values():
        assert isinstance(unit, Unit)
        assert sum(value.numel() for value in unit.parameters()) <= MAX_PARAMETERS
        assert unit.shape.latent >= 32


def test_mobilenets_are_cut_behind_each_resolution_and_before_the_last_expansion() -> None:
    points = CutClassifier(torchvision_models().mobilenet_v2(weights=None)).points()
    found = {n: (point.channels[n], point.strides[n]) for n, point in points.items()}
    assert found == {
        "features1": (16, 2), "features3": (24, 4), "features6": (32, 8), "features13": (96, 16),
        "features17": (320, 32), "features": (1280, 32),
    }  # fmt: skip


def test_networks_whose_cells_are_no_whole_pixels_are_refused() -> None:
    models = torchvision_models()
    with pytest.raises(RequestError, match="64 pixels become 3 cells"):
        CutClassifier(models.squeezenet1_1(weights=None)).points()
    with pytest.raises(RequestError, match="no split point"):
        CutClassifier(models.shufflenet_v2_x0_5(weights=None)).points()


def test_a_network_that_goes_on_in_place_leaves_its_features() -> None:
    cut = CutClassifier(torchvision_models().densenet121(weights=None))
    with torch.no_grad():
        found = cut.features(torch.rand(1, 3, 64, 64))
        before = found["features"].clone()
        cut.classify(found)
    assert torch.equal(found["features"], before)
