"""`vcm train semantic --stage features`: encoder and filter, from pictures alone.

Two views of a picture should look alike to the network and unlike all other pictures (InfoNCE
against the keys of a slowly following copy, and a queue of earlier keys), as a whole (behind c5)
and point by point (behind c4).  A linear map must also be able to tell the picture's patches from
the feature, so that it holds more than what these views differ in.  Later in the run, what the
filter lets through has a price in bits, so that it keeps what the losses need and drops the rest.

Source: He et al., "Momentum contrast", CVPR 2020; Chen et al., MoCo v3 (predictor, symmetric loss
with the keys of the batch), ICCV 2021; points matched by place as in Pinheiro et al., VADeR, 2020;
patches over their own deviation as in He et al., "Masked autoencoders", CVPR 2022.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.func import functional_call

from vcmcodec.training.loop import Means, Run, TrainingError, learn, schedule
from vcmcodec.training.semantic import FeaturesRecipe
from vcmcodec.training.semantic_views import ViewPool, Views, hot_box
from vcmcodec.vision.config import VisionConfig
from vcmcodec.vision.generic import CONFIG, LEAST_STEP, GenericNetwork, price
from vcmcodec.vision.layers import channels_last

STAGE = "features"
EMBEDDING, POINT, HIDDEN = 128, 64, 256
REPORT_EVERY, SAVE_EVERY = 50, 500
CALIBRATION = 20  # batches that the norms' statistics are taken from at the end
LOOK, LOOK_BATCH = 128, 64
NEAR = 0.3  # two points of a picture nearer than this (a view is 2 wide) are no negatives
COLLAPSED = 0.05


PATCH = 4  # side, in pixels of the halved picture: one position of the feature
PATCH_VALUES = 3 + 3 * PATCH**2
FLAT = 0.03  # a patch with a smaller deviation than this is not made larger


@torch.no_grad()
def patches(rgb: Tensor) -> Tensor:
    """Mean colours, and what patches look like whatever their contrast.

    Args:
        rgb: (N, 3, H, W) in 0..1, sides multiples of 8.

    Returns:
        (N, PATCH_VALUES, H / 8, W / 8).
    """
    fine = F.pixel_unshuffle(F.avg_pool2d(rgb, 2), PATCH)
    fine = fine.reshape(len(fine), 3, PATCH**2, *fine.shape[2:])
    mean = fine.mean(2, keepdim=True)
    away = (fine - mean).flatten(1, 2)
    away = away / (away.square().mean(1, keepdim=True).sqrt() + FLAT)
    return torch.cat([4 * (mean[:, :, 0] - 0.45), away], 1)


def _head(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, outputs)
    )


@dataclass(frozen=True)
class Embedded:
    """What views are compared by.

    Attributes:
        whole: (2 N, EMBEDDING), of length 1.
        points: (2 N, P, POINT), of length 1.
        price: bits a value of the filtered feature; 0 without a filter.
        kept: share of the feature's energy that passed the filter.
        lost: share of the patches' variance that a linear map cannot tell from the feature.
    """

    whole: Tensor
    points: Tensor
    price: Tensor
    kept: Tensor
    lost: Tensor


class Contrast(nn.Module):
    """The network that learns, and what is dropped once it has."""

    queue: Tensor
    boxes: Tensor

    def __init__(
        self, recipe: FeaturesRecipe, pictures: int, config: VisionConfig = CONFIG
    ) -> None:
        super().__init__()
        self.generic = channels_last(GenericNetwork(config, filtered=recipe.filtered))
        self.project, self.predict = _head(config.c5, EMBEDDING), _head(EMBEDDING, EMBEDDING)
        self.point_project, self.point_predict = _head(config.c4, POINT), _head(POINT, POINT)
        self.paint = nn.Conv2d(config.c3, PATCH_VALUES, 1)
        self.register_buffer("queue", F.normalize(torch.randn(recipe.queue, EMBEDDING), dim=1))
        self.register_buffer("boxes", torch.tensor([0.0, 0.0, 1.0, 1.0]).repeat(pictures, 1))

    def forward(self, rgb: Tensor, places: Tensor, query: bool = True) -> Embedded:
        """Embed views; keys go through neither predictor nor noise."""
        with torch.autocast(rgb.device.type, torch.bfloat16):
            raw = self.generic.network.front_end(rgb, "c3")["c3"]
            feature = self.generic.filter(raw)
        raw, feature = raw.float(), feature.float()
        scale = raw.square().mean().sqrt()
        kept = feature.detach().square().mean() / raw.detach().square().mean().clamp(min=1e-9)
        cost = price(feature, scale) if self.generic.filtered else raw.new_zeros(())
        if query and self.generic.filtered:
            feature = feature + (torch.rand_like(feature) - 0.5) * (LEAST_STEP * scale.detach())
        lost = raw.new_zeros(())
        with torch.autocast(rgb.device.type, torch.bfloat16):
            seen = self.generic.deeper(feature)
            if query:
                true = patches(rgb)
                lost = (self.paint(feature).float() - true).square().mean() / true.var()
        seen = {name: value.float() for name, value in seen.items()}
        whole = self.project(seen["c5"].mean((2, 3)))
        at = F.grid_sample(seen["c4"], places[:, :, None], align_corners=False)[..., 0]
        flat = at.transpose(1, 2).reshape(-1, at.shape[1])
        points = self.point_project(flat)
        if query:
            whole, points = self.predict(whole), self.point_predict(points)
        points = F.normalize(points, dim=1).reshape(*places.shape[:2], -1)
        return Embedded(F.normalize(whole, dim=1), points, cost, kept, lost)

    def learned(self) -> list[nn.Parameter]:
        """Parameters of this stage but for the filter: not those of pyramid and heads."""
        network = self.generic.network
        parts = [network.stem, network.c2, network.c3, network.c4, network.c5]
        parts += [self.project, self.predict, self.point_project, self.point_predict, self.paint]
        return [parameter for part in parts for parameter in part.parameters()]


def whole_loss(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """InfoNCE of each view with the other one's key, against the batch's keys and the queue."""
    count = len(queries) // 2
    swapped = torch.cat([keys[count:], keys[:count]])
    target = torch.arange(count, device=queries.device)
    total = queries.new_zeros(())
    for half in (slice(0, count), slice(count, None)):
        own, others = queries[half], swapped[half]
        logits = torch.cat([own @ others.T, own @ queue.T], 1) / temperature
        total = total + F.cross_entropy(logits, target)
    return total / 2


def points_loss(queries: Tensor, keys: Tensor, views: Views, temperature: float) -> Tensor:
    """The same point by point; near points of the same picture are no negatives."""
    count = len(queries) // 2
    chosen = views.shared.nonzero()[:, 0]
    if not len(chosen):
        return queries.sum() * 0
    total = queries.new_zeros(())
    for own, other in ((chosen, chosen + count), (chosen + count, chosen)):
        q, k = queries[own].flatten(0, 1), keys[other].flatten(0, 1)
        place = views.places[other].flatten(0, 1)
        of = torch.arange(len(chosen), device=q.device).repeat_interleave(queries.shape[1])
        near = (of[:, None] == of) & (torch.cdist(place, place) < NEAR)
        near.fill_diagonal_(False)
        logits = (q @ k.T / temperature).masked_fill(near, -1e4)
        total = total + F.cross_entropy(logits, torch.arange(len(q), device=q.device))
    return total / 2


@torch.no_grad()
def look_for_heat(contrast: Contrast, pool: ViewPool) -> None:
    """Set the box of every picture to where its own feature (c4) is strong."""
    contrast.eval()
    device = contrast.boxes.device
    for start in range(0, len(pool), LOOK_BATCH):
        indices = range(start, min(start + LOOK_BATCH, len(pool)))
        feature = contrast.generic.feature(pool.small(indices, LOOK).to(device))
        heat = contrast.generic.deeper(feature)["c4"].abs().sum(1).cpu().numpy()
        for index, one in zip(indices, heat, strict=True):
            contrast.boxes[index] = torch.tensor(hot_box(one), device=device)
    contrast.train()


def _step(
    run: Run, contrast: Contrast, pool: ViewPool, recipe: FeaturesRecipe, means: Means
) -> float:
    """One step; keeps running means, and returns the share of the learning rate."""
    device = contrast.queue.device
    if recipe.guided and run.step and run.step % recipe.refresh == 0:
        look_for_heat(contrast, pool)
    views = pool.views(recipe, contrast.boxes.cpu(), run.random).to(device)
    with torch.no_grad():
        keys: Embedded = functional_call(
            contrast, run.averaged, (views.rgb, views.places), {"query": False}
        )
    seen: Embedded = contrast(views.rgb, views.places)
    whole = whole_loss(seen.whole, keys.whole, contrast.queue, recipe.temperature)
    points = points_loss(seen.points, keys.points, views, recipe.temperature)
    value = (1 - recipe.dense) * whole + recipe.dense * points + recipe.retained * seen.lost
    if run.step >= recipe.filter_from * recipe.steps:
        value = value + recipe.price * seen.price
    share = schedule(run.step, recipe.steps, recipe.warm_up, recipe.last_rate)
    run.apply(value, share)
    with torch.no_grad():
        fresh = keys.whole[: recipe.queue]
        contrast.queue.copy_(torch.cat([fresh, contrast.queue])[: recipe.queue])
        spread = float(keys.whole.std(0).mean()) * EMBEDDING**0.5
    news = {
        "loss": value.item(), "whole": float(whole.detach()), "points": float(points.detach()),
        "price": float(seen.price.detach()), "kept": float(seen.kept),
        "lost": float(seen.lost.detach()), "spread": spread,
    }  # fmt: skip
    for name, new in news.items():
        means[name] = 0.98 * means.get(name, new) + 0.02 * new
    if run.step > 5 * recipe.warm_up and means["spread"] < COLLAPSED:
        raise TrainingError(f"step {run.step}: all pictures have come to look alike")
    return share


def train(
    data: Sequence[Path],
    folder: Path,
    recipe: FeaturesRecipe,
    show: Callable[[dict[str, float]], None],
    *,
    config: VisionConfig = CONFIG,
    seed: int = 1,
    until: int | None = None,
    device: str = "cpu",
) -> GenericNetwork:
    """Train, or go on where the run in `folder / features` stopped.

    Args:
        data: folders or tar shards of pictures; no label is read.
        folder: of all stages.
        until: stop (and save) at this step; by default at the recipe's last.

    Returns:
        The averaged network; it is also written to `folder / features.safetensors`.

    Raises:
        TrainingError: the loss is not finite, or all pictures have come to look alike.
    """
    torch.manual_seed(seed)
    pool = ViewPool(data)
    contrast = Contrast(recipe, len(pool), config).to(device)
    groups: list[dict[str, object]] = [{"params": contrast.learned(), "base": recipe.rate}]
    if recipe.filtered:
        gates = list(contrast.generic.filter.parameters())
        groups.append({"params": gates, "base": recipe.rate_filter})
    run = Run(folder / STAGE, contrast, groups, average=recipe.momentum, seed=seed)
    learn(
        run, recipe.steps if until is None else min(recipe.steps, until),
        partial(_step, run, contrast, pool, recipe), show,
        report_every=REPORT_EVERY, save_every=SAVE_EVERY,
    )  # fmt: skip
    with torch.no_grad():
        network = contrast.generic.network
        recalibrate([network.stem, network.c2, network.c3, network.c4, network.c5])
        for _ in range(CALIBRATION if run.step else 0):
            views = pool.views(recipe, contrast.boxes.cpu(), run.random).to(contrast.queue.device)
            contrast.generic.deeper(contrast.generic.feature(views.rgb))
    generic = contrast.generic.cpu().eval()
    keep(generic, folder / f"{STAGE}.safetensors", recipe, run.step)
    return generic


def recalibrate(parts: Iterable[nn.Module]) -> None:
    """Forget the statistics of norms; the next batches set them anew, as a plain mean."""
    for part in parts:
        part.train()
        for module in part.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None


def keep(network: GenericNetwork, path: Path, recipe: object, step: int) -> None:
    """Write what a stage has learned, with its recipe beside it."""
    about = {
        "config": dataclasses.asdict(network.network.config),
        "filtered": network.filtered,
        "recipe": dataclasses.asdict(recipe),  # type: ignore[call-overload]
        "step": step,
    }
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(state, path, {STAGE: json.dumps(about)})
