"""`vcm train semantic --stage heads`: what reads the decoded feature, and the export of it all.

This is the first stage that opens a label.  Encoder, filter and codec are frozen; the stages
behind the feature go on from what self-supervision taught them, pyramid and heads start anew.
They see the feature as it comes out of the codec at random rate levels, and learn from labels and
from what the reference network says of the clean picture.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from vcmcodec.errors import RequestError
from vcmcodec.nn.gain import RATE_LEVEL_MAX
from vcmcodec.nn.model_tensors import Model
from vcmcodec.nn.pyramid_codec import LATENT_STRIDE
from vcmcodec.profiles import semantic as profile
from vcmcodec.profiles.base_layer import encode_base
from vcmcodec.training import export, semantic_features, semantic_run
from vcmcodec.training.eyes import output_distance
from vcmcodec.training.labelled_batches import LabelledBatches
from vcmcodec.training.loop import Log, Run, schedule
from vcmcodec.training.photographs import PhotographCrops, random_labels
from vcmcodec.training.semantic import Draw, HeadsRecipe, code
from vcmcodec.training.vision_batches import Batch, change_colours
from vcmcodec.training.vision_losses import detection_loss, mask_loss, presence_loss
from vcmcodec.vision.backend import ReferenceBackend, open_backend
from vcmcodec.vision.generic import GenericFacts, GenericNetwork
from vcmcodec.vision.labels import VOC
from vcmcodec.vision.network import TASKS, VisionNetwork, VisionOutput

STAGE = "heads"
REPORT_EVERY, SAVE_EVERY = 50, 500
CALIBRATION = 20  # batches that the norms' statistics are taken from at the end


def behind(network: VisionNetwork) -> list[nn.Module]:
    """The parts that read the decoded feature."""
    return [
        network.c4, network.c5, network.fpn,
        network.detection, network.segmentation, network.classification,
    ]  # fmt: skip


def reference(name: str | None, device: str) -> VisionNetwork:
    """The network whose outputs are soft targets.

    Raises:
        RequestError: it is not of the reference kind, or knows other classes.
    """
    backend = open_backend(name, device=device)
    if not isinstance(backend, ReferenceBackend) or backend.labels != VOC:
        raise RequestError("soft targets need a reference network of the same classes")
    return backend.model.network


@dataclass(frozen=True)
class _Bench:
    """What the steps of one run share, all of it frozen but for the trained network."""

    trained: GenericNetwork
    shipped: GenericNetwork
    learned: semantic_run.Learned
    teacher: VisionNetwork | None
    batches: LabelledBatches
    recipe: HeadsRecipe

    def draw(self, random: np.random.Generator) -> tuple[Batch, int]:
        """A batch with changed colours, and the rate level that it is seen at."""
        self.batches.side = int(random.choice(self.recipe.sides))
        batch = self.batches.batch(self.recipe.batch, random)
        rgb = torch.stack([change_colours(one, random) for one in batch.rgb])
        rgb = rgb.contiguous(memory_format=torch.channels_last)
        return dataclasses.replace(batch, rgb=rgb), int(random.integers(RATE_LEVEL_MAX + 1))

    @torch.no_grad()
    def decoded(self, rgb: Tensor, level: int) -> Tensor:
        """The feature of pictures as it comes out of the codec."""
        feature = semantic_run.features_of(self.shipped, rgb)
        side = feature.shape[2] // 2, feature.shape[3] // 2
        plan = Draw(level, np.zeros(side, np.int64))
        found, _ = code(self.learned.codec, self.learned.prior, feature, plan, noisy=False)
        return found.contiguous(memory_format=torch.channels_last)

    def output(self, rgb: Tensor, level: int) -> VisionOutput:
        """What the trained network says of decoded features."""
        feature = self.decoded(rgb, level)
        with torch.autocast(rgb.device.type, torch.bfloat16):
            return self.trained.network.back_end({"c3": feature}, "c3")


def losses(output: VisionOutput, batch: Batch, bench: _Bench) -> dict[str, Tensor]:
    """Each loss of one batch, weighted; their sum is what is minimised."""
    recipe = bench.recipe
    classes, boxes = detection_loss(output, batch)
    found = {
        "class": recipe.detection * classes,
        "box": recipe.box * boxes,
        "mask": recipe.masks * mask_loss(output, batch),
        "presence": recipe.presence * presence_loss(output, batch),
    }
    if bench.teacher is not None:
        with torch.no_grad(), torch.autocast(batch.rgb.device.type, torch.bfloat16):
            clean = bench.teacher(batch.rgb)
        found["soft"] = (
            recipe.soft * torch.stack(list(output_distance(output, clean).values())).sum()
        )
    return found


def _step(run: Run, bench: _Bench, device: torch.device, means: dict[str, float]) -> float:
    """One step; keeps running means, and returns the share of the learning rate."""
    recipe = bench.recipe
    drawn, level = bench.draw(run.random)
    batch = drawn.to(device)
    parts = losses(bench.output(batch.rgb, level), batch, bench)
    value = torch.stack(list(parts.values())).sum()
    share = schedule(run.step, recipe.steps, recipe.warm_up, recipe.last_rate)
    run.apply(value, share, clip=10.0)
    news = {"loss": value.item()} | {k: float(v.detach()) for k, v in parts.items()}
    for name, new in news.items():
        means[name] = 0.98 * means.get(name, new) + 0.02 * new
    return share


def train(
    labels: Path,
    folder: Path,
    recipe: HeadsRecipe,
    show: Callable[[dict[str, float]], None],
    *,
    vision: str | None = None,
    seed: int = 1,
    until: int | None = None,
    device: str = "cpu",
) -> GenericNetwork:
    """Train, or go on where the run in `folder / heads` stopped.

    Args:
        labels: COCO JSON of the training pictures, beside these.
        folder: of all stages; features and codec must be done.
        vision: name of the network whose outputs are soft targets; None for the default one.
        until: stop (and save) at this step; by default at the recipe's last.

    Returns:
        The network with its heads; it is also written to `folder / heads.safetensors`.

    Raises:
        RequestError: a stage is missing, or the labels are of other classes.
        TrainingError: the loss is not finite.
    """
    torch.manual_seed(seed)
    learned, shipped = semantic_run.read_codec(folder)
    trained = semantic_run.read_network(semantic_run.result(folder, semantic_features.STAGE))
    teacher = reference(vision, device) if recipe.soft else None
    batches = LabelledBatches(labels, VOC, max(recipe.sides))
    place = torch.device(device)
    bench = _Bench(
        trained.to(place), shipped.to(place), learned.to(place), teacher, batches, recipe
    )
    parts = behind(trained.network)
    for part in parts:
        part.train()
    parameters = [parameter for part in parts for parameter in part.parameters()]
    groups: list[dict[str, object]] = [{"params": parameters, "base": recipe.rate}]
    run = Run(folder / STAGE, trained, groups, average=recipe.average, seed=seed)
    last = recipe.steps if until is None else min(recipe.steps, until)
    means: dict[str, float] = {}
    with closing(Log(folder / STAGE, show)) as log:
        while run.step < last:
            share = _step(run, bench, place, means)
            if run.step % REPORT_EVERY == 0:
                log.report(run.step, **{k: round(v, 5) for k, v in means.items()}, share=share)
            if run.step % SAVE_EVERY == 0:
                run.save()
    run.save()
    with torch.no_grad():
        for name, value in trained.named_parameters():
            value.copy_(run.averaged[name])
        if run.step:
            semantic_features.recalibrate(parts)
            for _ in range(CALIBRATION):
                batch, level = bench.draw(run.random)
                bench.output(batch.rgb.to(place), level)
    trained = trained.cpu().eval()
    semantic_features.keep(trained, folder / f"{STAGE}.safetensors", recipe, run.step)
    return trained


# ---- export


def count_symbols(
    model: Model, network: GenericNetwork, crops: Tensor, random: np.random.Generator
) -> np.ndarray:
    """How often each value occurs under each table, levels and group maps drawn as in use."""
    counter, counts = export.counting(len(model.tables))
    side = crops.shape[-1] // LATENT_STRIDE
    for crop in crops:
        labels = np.zeros((side, side), np.int64)
        if random.random() < 0.2:
            labels = random_labels(side, side, random)
        feature = semantic_run.features_of(network, crop[None])
        latent = profile.latent_of(model.codec, feature, labels)
        level = int(random.integers(RATE_LEVEL_MAX + 1))
        worth, groups = profile.price(model.codec, level), int(labels.max()) + 1
        encode_base(model, latent, labels, groups, level, price=worth, coder_class=counter)
    return counts


def export_model(
    folder: Path,
    data: Sequence[Path],
    *,
    crops: int = 400,
    crop: int = 256,
    seed: int = 7,
    show: Callable[[str], None] = print,
) -> tuple[bytes, str, str]:
    """Freeze everything that ships, count symbols on training crops, fit the tables.

    Args:
        folder: of all stages, each of them done.
        data: folders or tar shards of photographs.

    Returns:
        The bytes of a safetensors file, the model's fingerprint and that of its encoder, both in
        hexadecimal digits.
    """
    facts = GenericFacts(VOC, semantic_run.LONGER_SIDE, TASKS)
    learned, _ = semantic_run.read_codec(folder)
    trained = semantic_run.read_network(semantic_run.result(folder, STAGE))
    network, mark = semantic_run.shipped(trained, facts)
    if mark != learned.codec.binding:
        raise RequestError("the heads were trained for other features: run --stage heads again")
    random = np.random.default_rng(seed)
    pool = PhotographCrops(data, crop, upright=True)

    def count(model: Model) -> np.ndarray:
        return count_symbols(model, network, pool.batch(crops, random), random)

    model = export.fit_model(learned.codec, count, show)
    tensors, metadata = profile.pack(model, network, facts)
    profile.read_model(dict(tensors), dict(metadata))
    return save(tensors, metadata), metadata["fingerprint"], mark
