"""Training of bottleneck units: start, loop, labels, the estimator against real bytes, export."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load

import bottleneck_model
from photographs import NAMES, photograph
from vcmcodec.bitstream.constants import Kind
from vcmcodec.errors import RequestError, WeightsError
from vcmcodec.nn.bottleneck_tensors import BottleneckModel, unpack
from vcmcodec.nn.pyramid_codec import LevelGeometry
from vcmcodec.profiles import bottleneck
from vcmcodec.profiles.features import FeatureSource, Place
from vcmcodec.training import bottleneck_export, bottleneck_run
from vcmcodec.training.bottleneck import (
    BottleneckRecipe,
    Draw,
    Learned,
    code,
    distortion,
    loss,
)
from vcmcodec.training.eyes import Eyes
from vcmcodec.training.labelled_batches import LabelledBatches
from vcmcodec.training.rate_estimator import RateEstimator
from vcmcodec.vision.geometry import InputGeometry

RECIPE = BottleneckRecipe(("c4",), crop=64, batch=2, steps=20, warm_up=4, grouped=0)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bottleneck, "LATENTS", bottleneck_model.LATENTS)
    monkeypatch.setattr(bottleneck.shape_for, "__defaults__", (("c4",), bottleneck_model.LATENTS))
    monkeypatch.setattr(bottleneck_run, "PCA_CROPS", 16)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for name in NAMES[:3]:
        Image.fromarray(photograph(name, 220, 260, 40, 90)).save(folder / f"{name}.png")
    return folder


def network_bytes() -> dict[str, torch.Tensor]:
    network = bottleneck_model.backend().model.network
    return {name: value.clone() for name, value in network.state_dict().items()}


def score(learned: Learned) -> float:
    """The loss at three levels, without noise."""
    images = bottleneck_model.pictures(128, 128)
    eyes = Eyes(bottleneck_model.backend().model.network, [images])
    clean = eyes.clean(images)
    tensors = {n: clean.features[n].float() for n in learned.codec.shape.of("c4")}
    total = 0.0
    for level in (1000, 5000, 9000):
        plan = Draw("c4", level, np.zeros((8, 8), np.int64))
        with torch.no_grad():
            coded = code(learned, tensors, plan, noisy=False)
            distance, _ = distortion(eyes, coded, clean, None)
            total += float(loss(learned.codec, coded, distance, plan, images.numel() // 3))
    return total


def test_a_run_learns_resumes_to_the_step_and_leaves_the_network_alone(
    pictures: Path, tmp_path: Path
) -> None:
    before = network_bytes()

    def run(name: str, until: int | None) -> Learned:
        lines: list[dict[str, float]] = []
        return bottleneck_run.train([pictures], tmp_path / name, RECIPE, lines.append, until=until)

    whole = run("whole", None)
    run("parts", 9)
    parts = run("parts", None)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name
    assert score(whole) < 0.98 * score(run("start", 0))
    assert json.loads((tmp_path / "whole" / "state.json").read_text())["step"] == RECIPE.steps
    after = network_bytes()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_the_estimator_settles_while_units_rest(pictures: Path, tmp_path: Path) -> None:
    def run(until: int) -> dict[str, torch.Tensor]:
        learned = bottleneck_run.train(
            [pictures], tmp_path / "run", RECIPE, lambda line: None, until=until
        )
        del learned
        shards = [load(p.read_bytes()) for p in (tmp_path / "run").glob("state-*.safetensors")]
        return {name: value for shard in shards for name, value in shard.items()}

    moving = round(RECIPE.steps * (1 - RECIPE.settle))
    early, late = run(moving), run(RECIPE.steps)
    units = [name for name in early if name.startswith("weight.codec.")]
    assert units
    assert all(torch.equal(early[name], late[name]) for name in units)
    assert any(
        not torch.equal(value, late[name])
        for name, value in early.items()
        if name.startswith("weight.estimators.")
    )


def test_the_estimator_is_a_distribution() -> None:
    """Masses of all integers add up to one, at the start and after learning."""
    torch.manual_seed(2)
    estimator = RateEstimator(2, 3)
    estimator.start(torch.tensor([[0.3, 2.0, 9.0], [0.1, 1.0, 4.0]]))
    with torch.no_grad():
        for value in estimator.parameters():
            value.add_(0.3 * torch.randn_like(value))
        grid = torch.arange(-400.0, 401)[:, None].expand(-1, 3)
        for level in (0, 1):
            total = torch.exp2(-estimator.bits(grid, level)).sum(0)
            assert torch.allclose(total, torch.ones(3), atol=2e-3)


def symbols_of(
    learned: Learned, images: torch.Tensor
) -> Iterator[tuple[str, str, int, torch.Tensor]]:
    """Split point, tensor, trained level, and symbols (n, channels) of all pictures."""
    labels = np.zeros([side // 16 for side in images.shape[2:]], np.int64)
    for split in learned.codec.shape.splits:
        tensors = bottleneck_model.tensors_of(images, split)
        for name in tensors:
            unit = learned.codec.unit(split, name)
            latent = unit.analyse(tensors[name].clone(), LevelGeometry(labels)).detach()
            for number in range(bottleneck.LEVELS):
                level = learned.codec.level(round(number * 10000 / (bottleneck.LEVELS - 1)))
                steps = torch.floor(unit.steps(latent, level).detach() + 0.5)
                yield split, name, number, steps.reshape(-1, steps.shape[-1])


def bits_of(
    learned: Learned, model: BottleneckModel, images: torch.Tensor, rate_level: int
) -> tuple[float, float]:
    """Bits that the estimator expects of pictures at c4, and those that their files' runs have."""
    height, width = images.shape[2:]
    labels = np.zeros((height // 16, width // 16), np.int64)
    place = Place("c4", InputGeometry.scaled(height, width, height, width), labels, 1)
    estimated = coded = 0.0
    for image in images:
        tensors = bottleneck_model.tensors_of(image[None], "c4")
        source = FeatureSource(tensors, place, bottleneck.tasks(model))
        plan = Draw("c4", rate_level, labels)
        with torch.no_grad():
            estimated += float(code(learned, tensors, plan, noisy=False).bits)
        runs = bottleneck.encode(model, source, bottleneck.analyse(model, source), rate_level)
        coded += sum(8 * len(run.data) for run in runs if run.kind == Kind.LATENT)
    return estimated, coded


def test_the_estimate_is_within_three_percent_of_real_bits() -> None:
    """On pictures of which neither estimator nor tables know anything."""
    learned = bottleneck_model.learned(("c4",), bottleneck_model.LATENTS)
    network = bottleneck_model.backend().model.network
    images = bottleneck_model.pictures(160, 256)
    known, held = images, images.flip(3)[:, :, 20:148, 20:244]
    bottleneck_export.freeze(learned.codec)
    optimiser = torch.optim.Adam(learned.estimators.parameters(), lr=3e-2)
    for split, name, level, symbols in symbols_of(learned, known):
        for _ in range(60):
            bits = learned.estimator(split, name).bits(symbols, level).mean()
            optimiser.zero_grad()
            bits.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    counts = bottleneck_export.count_symbols(
        learned.codec, network, known, np.random.default_rng(1)
    )
    model = BottleneckModel(learned.codec, bottleneck_export.fit_tables(counts), b"")
    for number in range(bottleneck.LEVELS):
        rate_level = round(number * 10000 / (bottleneck.LEVELS - 1))
        estimated, coded = bits_of(learned, model, held, rate_level)
        assert abs(estimated / coded - 1) < 0.03, rate_level


def test_real_files_hold_what_the_estimator_expects_of_an_export(
    pictures: Path, tmp_path: Path
) -> None:
    learned = bottleneck_model.learned(("c4",), bottleneck_model.LATENTS)
    vision = bottleneck_model.backend().model
    blob, mark = bottleneck_export.export_model(
        learned.codec, vision, bottleneck_model.pictures(), show=len
    )
    path = tmp_path / "m.safetensors"
    path.write_bytes(blob)
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        model = unpack({n: file.get_tensor(n) for n in file.keys()}, file.metadata())  # noqa: SIM118
    assert model.fingerprint.hex() == mark
    assert not any("estimator" in name for name in load(blob))
    other = bottleneck.build(learned.codec.shape, "00" * 8)
    with pytest.raises(WeightsError, match="not this one"):
        bottleneck_export.export_model(other, vision, bottleneck_model.pictures())


def test_gradients_reach_units_through_the_rest_of_the_network() -> None:
    for split in bottleneck_model.SPLITS:
        learned = bottleneck_model.learned((split,))
        images = bottleneck_model.pictures(64, 64)[:2]
        eyes = Eyes(bottleneck_model.backend().model.network, [images])
        clean = eyes.clean(images)
        tensors = {n: clean.features[n].float() for n in learned.codec.shape.of(split)}
        coded = code(learned, tensors, Draw(split, 5000, np.zeros((4, 4), np.int64)), noisy=True)
        seen = eyes.going_on(coded.tensors)
        assert seen.output.presence is not None
        distance, _ = eyes.distance(seen, clean)
        distance.backward()  # type: ignore[no-untyped-call]
        for name, value in learned.codec.named_parameters():
            if name.endswith(("enter.weight", "leave.weight")):
                assert value.grad is not None, name
                assert value.grad.abs().max() > 0, name


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    names = bottleneck_model.backend().labels
    Image.fromarray(photograph("astronaut", 200, 240)).save(tmp_path / "a.png")
    mask = np.zeros((200, 240), np.uint8)
    mask[40:160, 60:180] = 15
    Image.fromarray(mask).save(tmp_path / "a-mask.png")
    Image.fromarray(photograph("coffee", 150, 120)).save(tmp_path / "b.png")
    coco = {
        "images": [
            {"id": 7, "file_name": "a.png", "mask": "a-mask.png", "width": 240, "height": 200},
            {"id": 9, "file_name": "b.png", "width": 120, "height": 150},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 15, "bbox": [60, 40, 120, 120]},
            {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 24, 20], "difficult": 1},
        ],
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(names)],
    }
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(coco))
    return path


def test_labelled_views_carry_their_boxes_and_masks(labels: Path) -> None:
    batches = LabelledBatches(labels, bottleneck_model.backend().labels, 96)
    seen = set()
    for seed in range(6):
        batch = batches.batch(3, np.random.default_rng(seed))
        assert batch.rgb.shape == (3, 3, 96, 96)
        assert sum(batch.counts) == len(batch.labels)
        for i, (boxes, classes, trust) in enumerate(batch.objects()):
            if not len(boxes):
                assert bool((batch.mask[i] == 255).all())
                continue
            assert classes.tolist() == [14, 0]
            assert trust.tolist() == [1, 0]
            left, top, right, bottom = boxes[0].round().int().tolist()
            inside = batch.mask[i, top + 1 : bottom - 1, left + 1 : right - 1]
            assert bool((inside == 15).all())
            assert bool((batch.mask[i, 80:] == 255).all())
            assert float(batch.valid[i].mean()) == pytest.approx(10 / 12)
            seen.add(left)
    assert len(seen) >= 1
    with pytest.raises(RequestError, match="other classes"):
        LabelledBatches(labels, ("cat",), 96)


def test_labels_teach_too(labels: Path, pictures: Path, tmp_path: Path) -> None:
    """Supervised: the units move, to another place than without labels, and the log says so."""
    recipe = BottleneckRecipe(("c3",), crop=64, batch=2, steps=6, warm_up=2, grouped=0)

    def units(name: str, **asked: object) -> Learned:
        return bottleneck_run.train(
            [] if "labels" in asked else [pictures], tmp_path / name, recipe, lambda line: None,
            **asked,  # type: ignore[arg-type]
        )  # fmt: skip

    taught = units("taught", labels=labels)
    start = units("untaught", labels=labels, until=0)
    weight = "units.c3_c3.leave.weight"
    moved = taught.codec.state_dict()[weight] - start.codec.state_dict()[weight]
    assert float(moved.abs().max()) > 1e-4
    assert all(bool(torch.isfinite(v).all()) for v in taught.state_dict().values())
    with pytest.raises(RequestError, match="not both"):
        bottleneck_run.train([pictures], tmp_path / "x", recipe, print, labels=labels)


def test_the_l1_recipe_needs_no_estimator(pictures: Path, tmp_path: Path) -> None:
    recipe = BottleneckRecipe(
        ("c4",), rate="l1", crop=64, batch=2, steps=8, warm_up=2, grouped=0, settle=0.0
    )
    learned = bottleneck_run.train([pictures], tmp_path / "l1", recipe, lambda line: None)
    fresh = RateEstimator(bottleneck.LEVELS, 1)
    for estimator in learned.estimators.values():
        assert isinstance(estimator, RateEstimator)
        assert bool((estimator.bends == 0).all())
        assert bool((estimator.first == fresh.first[0, 0, 0]).all())
