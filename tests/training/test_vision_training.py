"""Training of the vision network on a few made pictures: views, assignment, losses, resuming."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import tarfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from vcmcodec.cli.train_vision import command
from vcmcodec.errors import RequestError
from vcmcodec.training import muon, vision_losses
from vcmcodec.training.blobs import BlobReader, BlobWriter
from vcmcodec.training.loop import TrainingError
from vcmcodec.training.vision import (
    CollapseWatch,
    VisionTrainer,
    batches_from,
    load_average,
    train_vision,
)
from vcmcodec.training.vision_batches import Batch, VisionBatches, sampling_weights
from vcmcodec.training.vision_cache import record_key
from vcmcodec.training.vision_pictures import Sample, decode_all, read_samples
from vcmcodec.training.vision_recipe import AreasRecipe, Phase, VisionRecipe, with_steps
from vcmcodec.training.vision_stages import DeepRecipe, stage_lessons
from vcmcodec.training.vision_teacher import Lesson, stage_loss, start_at_means, taught_features
from vcmcodec.training.vision_views import (
    IGNORED,
    Objects,
    Window,
    cut_view,
    known_objects,
)
from vcmcodec.vision import weights
from vcmcodec.vision.config import VisionConfig
from vcmcodec.vision.heads import DeepSegmentationHead
from vcmcodec.vision.network import STAGE_STRIDES, VisionNetwork
from vcmcodec.vision.split import split_points
from vcmcodec.vision.tasks.detection import box_iou

SMALL = VisionConfig(stem=8, c2=8, c3=16, c4=16, c5=16, pyramid=(16, 16, 24), head=8)
RECIPE = VisionRecipe(
    steps=6,
    phases=(Phase(4, 64, 2), Phase(10**9, 96, 2)),
    warmup=2,
    decay=0.5,
    forced=(2, 4),
    config=SMALL,
)
NAMES = ("class", "mask", "soft", "teach", "presence", "taught_presence")
SIZE = (60, 96)  # of the made pictures


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def picture_file(array: np.ndarray, kind: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, kind)
    return out.getvalue()


def write_labels(folder: Path, name: str, images: list[dict], annotations: list[dict]) -> None:
    (folder / f"{name}.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": []})
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four labelled pictures (one with a mask), two of the second set, one photograph."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for set_name, count in (("voc-train", 4), ("voc-train-2", 2)):
        images, annotations = [], []
        with tarfile.open(folder / f"{set_name}-0.tar", "w") as tar:
            for i in range(count):
                rgb = rng.integers(0, 255, (*SIZE, 3)).astype(np.uint8)
                name = f"{set_name}-{i}.png"
                add(tar, name, picture_file(rgb, "png"))
                image = {"id": i, "file_name": name, "tar": tar_name(set_name), "mask": None}
                box = {"image_id": i, "category_id": 1 + i, "bbox": [10, 20, 40, 30]}
                box |= {"difficult": int(i == 3)}
                if set_name == "voc-train-2":
                    image["labelled"] = i == 0
                    box |= {"pseudo": True, "score": 0.8}
                elif i == 0:
                    image["mask"] = "mask-0.png"
                    mask = np.zeros(SIZE, np.uint8)
                    mask[20:50, 10:50] = 1
                    add(tar, "mask-0.png", picture_file(mask, "png"))
                images.append(image)
                if image.get("labelled", True):
                    annotations.append(box)
        write_labels(folder, set_name, images, annotations)
    with tarfile.open(folder / "train-photos-0.tar", "w") as tar:
        large = rng.integers(0, 255, (300, 600, 3)).astype(np.uint8)
        add(tar, "photo.png", picture_file(large, "png"))
    return folder


def tar_name(set_name: str) -> str:
    return f"{set_name}-0.tar"


@pytest.fixture(scope="module")
def cache(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The decoded pictures, and one box that a detector might have found."""
    folder = tmp_path_factory.mktemp("cache")
    writer = BlobWriter(folder / "pictures")
    for sample, rgb, mask in decode_all(data, read_samples(data)):
        arrays = {"rgb": rgb, "teacher_boxes": np.array([[60, 0, 90, 20, 0.7, 6]], np.float32)}
        if mask is not None:
            arrays["mask"] = mask
        writer.add(record_key(sample), arrays)
    writer.close()
    return folder


def look(rgb: torch.Tensor, config: VisionConfig = SMALL) -> Lesson:
    """What teachers might say: features that are averages of the pixels, one sure object."""
    count, _, height, width = rgb.shape
    widths = {k: v for split in split_points(config).values() for k, v in split.channels.items()}
    stages = {}
    for name in ("c2", "c3", "c4", "c5_halved", "c5_wide", "c5", "p3", "p4", "p5"):
        stage = name.partition("_")[0]
        pooled = torch.nn.functional.avg_pool2d(rgb, STAGE_STRIDES[stage])
        stages[name] = pooled.repeat(1, widths[stage] // 3 + 1, 1, 1)[:, : widths[stage]]
    cells = sum((height // stride) * (width // stride) for stride in (8, 16, 32))
    scores = torch.full((count, cells, 20), 0.01)
    scores[:, 0, 3] = 0.9
    boxes = torch.tensor([0.0, 0.0, 40.0, 30.0]).expand(count, cells, 4)
    areas = torch.zeros(count, 21, height // 8, width // 8)
    areas[:, 4, :3, :3] = 5.0
    return Lesson(stages, scores, boxes, areas)


def test_stages_begin_at_the_means_of_what_they_learn() -> None:
    torch.manual_seed(5)
    network, rgb = VisionNetwork(SMALL).train(), torch.rand(4, 3, 96, 96)
    given = look(rgb)
    means = torch.tensor([3.0, 0.5, 0.0, -0.2])  # SiLU goes no lower than -0.28
    stages = {
        name: torch.nn.functional.silu(torch.randn_like(stage) * 0.2)
        + means[torch.arange(stage.shape[1]) % 4].view(-1, 1, 1)
        for name, stage in given.stages.items()
    }
    given = dataclasses.replace(given, stages=stages)
    everything = torch.ones(4, dtype=torch.bool)

    def away() -> dict[str, float]:
        with torch.no_grad():
            own, _ = taught_features(network, rgb, given, everything, 1.0)
        gaps = {n: own[n].mean((0, 2, 3)) - given.stages[n].mean((0, 2, 3)) for n in own}
        return {name: float(gap.abs().max()) for name, gap in gaps.items()}

    assert min(away().values()) > 2
    start_at_means(network, rgb, given)
    assert max(away().values()) < 0.05


def samples_of(data: Path) -> dict[str, Sample]:
    return {sample.name: sample for sample in read_samples(data)}


def test_labels_are_read_as_the_files_mean_them(data: Path) -> None:
    samples = samples_of(data)
    assert len(samples) == 7
    first, second = samples["voc-train-0.png"], samples["voc-train-2-0.png"]
    assert first.boxes.tolist() == [[10, 20, 50, 50]]
    assert (first.complete, second.complete) == (True, False)
    assert (first.trust.tolist(), second.trust.tolist()) == ([1.0], [pytest.approx(0.8)])
    assert samples["voc-train-3.png"].difficult.tolist() == [True]
    assert not samples["voc-train-2-1.png"].labelled
    assert not samples["photo.png"].labelled


def test_large_photographs_are_reduced(data: Path) -> None:
    sizes = {sample.name: rgb.shape[:2] for sample, rgb, _ in decode_all(data, read_samples(data))}
    assert sizes["photo.png"] == (176, 352)
    assert sizes["voc-train-0.png"] == SIZE


def test_a_view_moves_pixels_mask_and_boxes_alike(data: Path, cache: Path) -> None:
    reader = BlobReader(cache / "pictures")
    sample = samples_of(data)["voc-train-0.png"]
    for flip in (False, True):
        window = Window(left=10, top=20, width=64, height=32, flip=flip)
        view = cut_view(reader, sample, window, (64, 128))
        x1, y1, x2, y2 = view.objects.boxes[0]
        assert (y1, y2) == (0, 60)
        assert (x1, x2) == ((48, 128) if flip else (0, 80))
        inside = view.mask == 1
        columns = inside.any(0).nonzero()[:, 0]
        assert (int(columns[0]), int(columns[-1]) + 1) == (int(x1), int(x2))
        assert int(inside.any(1).nonzero()[-1, 0]) + 1 == 60


def test_beyond_the_picture_nothing_is_taught(data: Path, cache: Path) -> None:
    reader = BlobReader(cache / "pictures")
    sample = samples_of(data)["voc-train-0.png"]
    window = Window(left=-96, top=0, width=192, height=60, flip=False)
    view = cut_view(reader, sample, window, (64, 128))
    assert (view.mask[:, :64] == IGNORED).all()
    assert view.valid[:, :8].sum() == 0
    assert view.valid[:, 8:].min() == 1
    assert (view.rgb[:, :, :60] == 114).all()


def test_doubtful_objects_are_ignored_not_punished(data: Path) -> None:
    samples = samples_of(data)
    teacher = np.array(
        [[10, 20, 50, 50, 0.9, 0], [60, 0, 90, 20, 0.7, 6], [0, 0, 9, 9, 0.2, 7]], np.float32
    )
    complete = known_objects(samples["voc-train-0.png"], teacher)
    assert complete.labels.tolist() == [0, 6, 7]
    assert complete.trust.tolist() == [1, 0, 0]
    partial = known_objects(samples["voc-train-2-0.png"], teacher)
    assert partial.trust.tolist() == pytest.approx([0.8, 0.7, 0])
    assert known_objects(samples["voc-train-3.png"], teacher).trust[0] == 0


def test_rare_classes_are_drawn_more_often() -> None:
    empty = np.zeros((0, 4), np.float32)

    def sample(labels: list[int]) -> Sample:
        count = len(labels)
        return Sample("", "", None, np.zeros((count, 4), np.float32), np.array(labels, np.int64),
                      np.ones(count, np.float32), np.zeros(count, bool), True)  # fmt: skip

    nothing = dataclasses.replace(sample([]), boxes=empty, complete=False)
    weights = sampling_weights([sample([3])] + [sample([5])] * 997 + [nothing] * 2)
    assert weights.sum() == pytest.approx(1)
    assert weights[0] / weights[1] == pytest.approx(np.sqrt(0.08 / 0.001))
    assert weights[-1] < weights[1]


def test_a_stage_that_knows_the_mean_alone_has_a_loss_of_one() -> None:
    torch.manual_seed(0)
    teacher = torch.randn(2, 5, 8, 8) * torch.tensor([0.1, 1, 3, 10, 0.5]).view(1, 5, 1, 1) + 4
    mean = teacher.mean((0, 2, 3), keepdim=True).expand_as(teacher)
    assert float(stage_loss(mean, teacher)) == pytest.approx(1, abs=0.02)
    assert float(stage_loss(teacher, teacher)) == 0


def test_a_batch_is_a_function_of_seed_and_step(data: Path, cache: Path) -> None:
    def batch(seed: int, step: int) -> Batch:
        return VisionBatches(data, cache, side=64, size=3, seed=seed, mosaic=0.5)[step]

    assert torch.equal(batch(1, 5).rgb, batch(1, 5).rgb)
    assert not torch.equal(batch(1, 5).rgb, batch(1, 6).rgb)
    assert not torch.equal(batch(1, 5).rgb, batch(2, 5).rgb)
    assert batch(1, 5).rgb.shape == (3, 3, 64, 64)


def cells() -> tuple[torch.Tensor, torch.Tensor]:
    """Centres and strides of a 32x32 input at stride 8."""
    y, x = torch.meshgrid(torch.arange(4) * 8 + 4.0, torch.arange(4) * 8 + 4.0, indexing="ij")
    return torch.stack((x.flatten(), y.flatten()), 1), torch.full((16,), 8.0)


def test_objects_are_assigned_to_the_cells_that_fit_them() -> None:
    centres, strides = cells()
    targets = torch.tensor([[0.0, 0, 16, 16], [16.0, 16, 32, 32]])
    boxes = torch.cat((centres - 8, centres + 8), 1)
    scores = torch.full((16, 2), 0.1)
    owner, quality = vision_losses.assign(
        scores, boxes, centres, strides, targets, torch.tensor([0, 1])
    )
    owned = [(owner == i).nonzero()[:, 0].tolist() for i in (0, 1)]
    assert 5 not in owned[1]
    assert set(owned[0]) <= {0, 1, 4, 5}
    assert set(owned[1]) <= {10, 11, 14, 15}
    assert (quality[owner < 0] == 0).all()
    iou = box_iou(boxes[owned[0]], targets[0])
    assert quality[owned[0]].max() == pytest.approx(float(iou.max()))


def test_a_tiny_object_is_still_met_by_its_cell() -> None:
    centres, strides = cells()
    boxes = torch.cat((centres - 2, centres + 2), 1)
    owner, _ = vision_losses.assign(
        torch.full((16, 1), 0.1), boxes, centres, strides,
        torch.tensor([[9.0, 9, 11, 11]]), torch.tensor([0]),
    )  # fmt: skip
    assert int(owner[5]) == 0


def test_generalised_overlap_of_boxes_that_do_not_touch_is_negative() -> None:
    one, other = torch.tensor([0.0, 0, 2, 2]), torch.tensor([4.0, 0, 6, 2])
    assert box_iou(one, other) == 0
    assert box_iou(one, other, generalised=True) == pytest.approx(-1 / 3)
    assert box_iou(one, one, generalised=True) == pytest.approx(1)


def test_orthogonalised_momentum_has_even_singular_values() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(48, 200) * torch.logspace(-2, 1, 200)
    values = torch.linalg.svdvals(muon.orthogonalise(matrix))
    assert values.min() > 0.5
    assert values.max() < 1.4


DEEP = DeepRecipe(steps=3, side=64, size=2, replays=1, kept=2)


@pytest.mark.parametrize("still", [10**9, 1])
def test_training_goes_on_where_it_stopped(
    data: Path, cache: Path, tmp_path: Path, still: int
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    recipe = dataclasses.replace(RECIPE, still=still, deep=DEEP)
    train_vision(recipe, data, cache, whole, look=look)
    steps = iter([False, False, True])
    train_vision(recipe, data, cache, parts, look=look, should_stop=lambda: next(steps))
    trainer = VisionTrainer(recipe, torch.device("cpu"), look)
    trainer.load(parts / "last.pt")
    assert trainer.step == 3
    train_vision(recipe, data, cache, parts, look=look)
    one, other = (torch.load(f / "last.pt", weights_only=True) for f in (whole, parts))
    assert one["step"] == other["step"] == 6
    for part in ("network", "average"):
        for name, value in one[part].items():
            torch.testing.assert_close(value, other[part][name], rtol=1e-3, atol=1e-3, msg=name)
    network, step = load_average(whole / "last.pt")
    assert (step, network.config) == (6, SMALL)


def test_deep_stages_learn_alone(data: Path, cache: Path) -> None:
    recipe = dataclasses.replace(RECIPE, steps=40, warmup=1, decay=0.01, still=0, deep=DEEP)
    trainer = VisionTrainer(recipe, torch.device("cpu"), look)
    views = VisionBatches(data, cache, side=64, size=2, mosaic=0.0)
    lessons = stage_lessons(trainer.network, views, lambda rgb: look(rgb).stages, 1)
    trainer.step = 1
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    losses = [trainer.deep_step(lessons)["deep"]]
    trainer.step = 1
    for _ in range(30):
        losses.append(trainer.deep_step(lessons)["deep"])
        trainer.step = 1  # the same batch again
    assert losses[-1] < 0.7 * losses[0]
    after = trainer.network.state_dict()
    changed = {n.split(".")[0] for n in before if not torch.equal(before[n], after[n])}
    assert changed == {"c4", "c5", "fpn"}


def test_batches_of_deep_steps_are_new_and_old_ones() -> None:
    recipe = DeepRecipe(replays=3, kept=5)
    numbers = [recipe.number(step, seed=2) for step in range(400)]
    assert numbers[::4] == list(range(100))
    for step, number in enumerate(numbers):
        assert max(0, step // 4 - 4) <= number <= step // 4
    assert len(set(numbers[201:204] + numbers[205:208] + numbers[209:212])) > 3


def test_a_few_steps_on_one_batch_lower_every_kind_of_loss(data: Path, cache: Path) -> None:
    recipe = dataclasses.replace(RECIPE, steps=60, warmup=1, decay=0.01, forced=(5, 20))
    trainer = VisionTrainer(recipe, torch.device("cpu"), look)
    batches = VisionBatches(data, cache, side=64, size=4, mosaic=0.0)
    batch = next(b for b in map(batches.__getitem__, range(50)) if (b.mask != IGNORED).any())
    first = trainer.train_step(batch)
    for _ in range(30):
        last = trainer.train_step(batch)
    assert last["total"] < 0.7 * first["total"]
    assert [n for n in NAMES if last[n] >= first[n]] == []


def test_a_loss_that_is_not_finite_ends_the_run(data: Path, cache: Path) -> None:
    trainer = VisionTrainer(RECIPE, torch.device("cpu"), look)
    batch = VisionBatches(data, cache, side=64, size=2)[0]
    broken = dataclasses.replace(batch, rgb=batch.rgb * float("nan"))
    with pytest.raises(TrainingError, match="not finite"):
        trainer.train_step(broken)


def test_a_checkpoint_of_another_shape_is_refused(tmp_path: Path) -> None:
    trainer = VisionTrainer(RECIPE, torch.device("cpu"), look)
    trainer.save(tmp_path / "a.pt")
    other = dataclasses.replace(RECIPE, config=dataclasses.replace(SMALL, c5=32))
    with pytest.raises(RequestError, match="another shape"):
        VisionTrainer(other, torch.device("cpu"), look).load(tmp_path / "a.pt")


def test_the_rate_rises_holds_and_falls() -> None:
    recipe = VisionRecipe(steps=1000, warmup=100, decay=0.2, rate=1.0, forced=(100, 300))
    assert recipe.rate_at(0) == pytest.approx(0.01)
    assert recipe.rate_at(100) == recipe.rate_at(799) == 1.0
    assert recipe.rate_at(900) == pytest.approx(0.505)
    assert recipe.rate_at(1000) == pytest.approx(0.01)
    longer = with_steps(recipe, 2000)
    assert longer.phases[0].until == 2 * recipe.phases[0].until
    assert longer.phases[-1] == recipe.phases[-1]
    assert longer.forced == tuple(2 * step for step in recipe.forced)
    first, last = recipe.forced
    assert recipe.forced_at(first) == 1.0
    assert recipe.forced_at((first + last) // 2) == pytest.approx(0.5)
    assert recipe.forced_at(last) == 0.0


def test_early_warnings_name_what_does_not_learn() -> None:
    watch = CollapseWatch()
    means = {"teach": 4.0, "mask": 2.0, "class": 3.0, "norm": 5.0}
    assert watch.look(20, means) == []
    assert watch.look(2000, {**means, "mask": 1.0, "class": 1.0}) == [
        "teach loss has not fallen since the start"
    ]
    assert "gradient norm" in watch.look(40, {**means, "norm": 500.0})[0]


def test_unfinished_caches_do_not_count(tmp_path: Path) -> None:
    writer = BlobWriter(tmp_path / "x")
    writer.add("a", {"v": np.arange(5, dtype=np.int16)})
    with pytest.raises(RequestError, match="no cache"):
        BlobReader(tmp_path / "x")
    writer.close()
    reader = BlobReader(tmp_path / "x")
    assert reader.get("a", "v").tolist() == [0, 1, 2, 3, 4]
    assert ("a" in reader, len(reader), reader.names("a")) == (True, 1, ["v"])


def test_objects_join_in_order() -> None:
    one = Objects(np.zeros((1, 4)), np.array([1]), np.array([0.5]))
    two = Objects(np.ones((2, 4)), np.array([2, 3]), np.array([1.0, 0.0]))
    assert one.join(two).labels.tolist() == [1, 2, 3]


def test_workers_prepare_the_same_batches(data: Path, cache: Path) -> None:
    own = list(batches_from(RECIPE, data, cache, 3, 0))
    theirs = list(batches_from(RECIPE, data, cache, 3, 1))
    assert [b.rgb.shape[-1] for b in own] == [64, 96, 96]
    for one, other in zip(own, theirs, strict=True):
        assert torch.equal(one.rgb, other.rgb)
        assert torch.equal(one.boxes, other.boxes)
        assert [len(labels) for _, labels, _ in one.objects()] == list(other.counts)


def test_the_command_trains_and_exports(
    data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Made:
        """Stands for the two teachers, whose files are not everywhere."""

        def __init__(self, folder: Path, device: torch.device) -> None:
            self.look = partial(look, config=VisionConfig())
            self.stages = lambda rgb: self.look(rgb).stages

        def areas(self, rgb: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
            count, side = len(rgb), rgb.shape[2]
            shapes = DeepSegmentationHead.STAGES.items()
            stages = {n: torch.randn(count, c, side // 16, side // 16) for n, c in shapes}
            return stages, self.look(rgb).segmentation

    monkeypatch.setattr("vcmcodec.training.vision_teacher.Teachers", Made)
    run, target = tmp_path / "run", tmp_path / "weights"
    line = ["--data", data, "--cache", cache, "--run", run, "--steps", 3, "--batch-scale", 0.1]
    line += ["--export", target, "--model", "vision-test", "--size", 128]
    done = CliRunner().invoke(command, [str(part) for part in line], standalone_mode=False)
    assert done.exception is None, done.exception
    assert {"last.pt", "areas.pt", "log.jsonl"} <= {path.name for path in run.iterdir()}
    (entry,) = json.loads((target / "manifest.json").read_text())["models"]
    assert (entry["id"], entry["profile"]) == ("vision-test", "vision")
    model = weights.load(target / entry["file"])
    assert model.longer_side == 128
    assert model.facts == {"steps": 3, "steps_areas": 1}
    assert model.network.config.areas == AreasRecipe().width
    assert entry["sha256"] == hashlib.sha256((target / entry["file"]).read_bytes()).hexdigest()
