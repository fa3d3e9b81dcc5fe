"""Teaching the vision network's deep segmentation head, when everything else is done.

The head reads the pyramid, which stands still, and its stages have the places and widths of the
segmentation teacher's: each is taught by itself, at first on the teacher's stage before it
("forced"), then on its own.  What a batch needs is made once and kept, and shown several times.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from vcmcodec.training.learner import Learner, go_on, read_checkpoint
from vcmcodec.training.loop import check_behind, warm_stable_decay
from vcmcodec.training.mixtures import stirred
from vcmcodec.training.muon import MuonAdamW, parameter_groups
from vcmcodec.training.vision_batches import Batch, VisionBatches
from vcmcodec.training.vision_losses import mask_loss, taught_mask_loss
from vcmcodec.training.vision_recipe import AreasRecipe, VisionRecipe
from vcmcodec.training.vision_stages import Replayed
from vcmcodec.training.vision_teacher import softened, stage_loss
from vcmcodec.vision.heads import DeepSegmentationHead
from vcmcodec.vision.layers import channels_last
from vcmcodec.vision.network import VisionNetwork, VisionOutput

CHECKPOINT = "areas.pt"  # beside the whole network's
LEVELS = ("p3", "p4", "p5")
# shows a batch (N, 3, H, W) to the segmenter: its stages, and its logits at stride 8
LookAtAreas = Callable[[Tensor], tuple[Mapping[str, Tensor], Tensor]]


@dataclass(frozen=True)
class AreaLesson:
    """What the head learns from in one batch.

    Attributes:
        levels: p3, p4, p5 of the network itself, bfloat16.
        stages: of the teacher, by the head's names, bfloat16.
        areas: (N, classes + 1, H / 8, W / 8) logits of the teacher, float16.
        batch: masks and what is valid; without its pixels.
    """

    levels: tuple[Tensor, Tensor, Tensor]
    stages: Mapping[str, Tensor]
    areas: Tensor
    batch: Batch


def area_lessons(
    network: VisionNetwork, source: VisionBatches, look: LookAtAreas, kept: int,
    mixed: float = 0.0,
) -> Replayed[AreaLesson]:  # fmt: skip
    """Lessons by number of a network that no longer learns; a share of the views is mixed."""

    @torch.no_grad()
    def make(number: int) -> AreaLesson:
        batch = stirred(source[number], mixed, number).to(network.mean.device)
        stages, areas = look(batch.rgb)
        with torch.autocast(batch.rgb.device.type, torch.bfloat16):
            features = network.features(batch.rgb.contiguous(memory_format=torch.channels_last))
        p3, p4, p5 = (features[name].to(torch.bfloat16) for name in LEVELS)
        return AreaLesson(
            (p3, p4, p5),
            {name: value.to(torch.bfloat16) for name, value in stages.items()},
            areas.to(torch.float16),
            replace(batch, rgb=batch.rgb[:, :, :1, :1].clone()),
        )

    return Replayed(make, kept)


class AreaTrainer(Learner):
    """The head, its average, the optimiser and the place in the run."""

    def __init__(self, network: VisionNetwork, recipe: VisionRecipe) -> None:
        """Take a network whose other parts are done, and begin with an untaught head."""
        torch.manual_seed(recipe.seed)
        self.recipe, self.areas = recipe, recipe.areas
        config = replace(network.config, areas=recipe.areas.width)
        self.network = channels_last(network.requires_grad_(False).eval())
        self.head = channels_last(DeepSegmentationHead(config).to(network.mean.device))
        groups = parameter_groups(self.head, recipe.weight_decay)
        super().__init__(
            self.head, MuonAdamW(groups, self.areas.rate), shape={"width": self.areas.width},
            behind=features_mark(network), clip=recipe.clip, ema=self.areas.ema,
            device=network.mean.device,
        )  # fmt: skip

    def losses(self, lesson: AreaLesson) -> dict[str, Tensor]:
        """Each loss of one batch, weighted; their sum is what is minimised."""
        recipe, areas = self.recipe, self.areas
        random = torch.Generator().manual_seed(recipe.seed * 10**6 + self.step)
        chosen = torch.rand(len(lesson.areas), generator=random) < areas.forced_at(self.step)
        shown = chosen.view(-1, 1, 1, 1).to(lesson.areas.device)

        def passed(name: str, own: Tensor) -> Tensor:
            return torch.where(
                shown, lesson.stages[name].to(own.dtype), softened(own, areas.through)
            )

        with torch.autocast(lesson.areas.device.type, torch.bfloat16):
            stages, logits = self.head.in_parts(lesson.levels, passed)
        output = VisionOutput(segmentation=logits)
        wanted = lesson.areas.float()
        return {
            f"stage_{name}": areas.teach * stage_loss(own.float(), lesson.stages[name].float())
            for name, own in stages.items()
        } | {
            "mask": recipe.segmentation * mask_loss(output, lesson.batch),
            "soft": recipe.soft * taught_mask_loss(output, lesson.batch, wanted),
        }

    @torch.no_grad()
    def start_at_means(self, lesson: AreaLesson) -> None:
        """Let the stages that end in a linear layer begin at the mean of what they learn."""
        for name, part in (("mixed", self.head.mix), ("deep", self.head.deepen)):
            bias = part[-1].bias
            assert isinstance(bias, Tensor)
            bias.copy_(lesson.stages[name].float().mean((0, 2, 3)))
        self.begin_average()

    def train_step(self, lesson: AreaLesson) -> dict[str, float]:
        """One step of the optimiser; returns the losses."""
        if self.step == 0:
            self.start_at_means(lesson)
        areas = self.areas
        share = warm_stable_decay(self.step, areas.steps, areas.warm_up, areas.decay)
        self.head.train()
        parts = self.losses(lesson)
        total = torch.stack(list(parts.values())).sum()
        self.descend(total, lambda group: areas.rate * share)
        return {name: float(value.detach()) for name, value in parts.items()}


def train_areas(
    network: VisionNetwork,
    recipe: VisionRecipe,
    data: Path,
    cache: Path,
    run: Path,
    *,
    look: LookAtAreas,
    minutes: float | None = None,
    save_every: int = 300,
    report: Callable[[dict[str, float]], None] = lambda row: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Teach the head, or go on where `run/areas.pt` stopped behind the same network.

    Args:
        network: whose other parts are done, with its norms not folded or folded; it is not changed.
        recipe: all numbers.
        data, cache, run: as of `vision.train_vision`.
        look: shows a batch to the segmenter; `Teachers.areas`.
        minutes: stop (with a checkpoint) after so much time.
        save_every: steps between checkpoints.
        report: called with the step and the mean losses.
        should_stop: asked after every step; True ends the run with a checkpoint.

    Returns:
        Path of the checkpoint.
    """
    trainer, path = AreaTrainer(network, recipe), run / CHECKPOINT
    if is_behind(network, path):  # else the network went on learning, and its head begins again
        trainer.load(path)
    areas = recipe.areas
    views = VisionBatches(
        data, cache, side=areas.side, size=areas.size, seed=recipe.seed + 2,
        mosaic=recipe.mosaic, zoom=areas.zoom,
    )  # fmt: skip
    lessons = area_lessons(trainer.network, views, look, areas.kept, areas.mixed)

    def take_step() -> dict[str, float]:
        return trainer.train_step(lessons[areas.number(trainer.step, recipe.seed)])

    go_on(
        trainer, take_step, areas.steps, path, run / "areas",
        report=report, minutes=minutes, save_every=save_every, should_stop=should_stop,
    )  # fmt: skip
    return path


def features_mark(network: VisionNetwork) -> str:
    """16 hexadecimal digits of everything in a network but its deep segmentation head."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        if not name.startswith("areas."):
            digest.update(f"{name} {tuple(value.shape)}\n".encode())
            digest.update(value.cpu().contiguous().numpy().tobytes())
    return f"network {digest.hexdigest()[:16]}"


def is_behind(network: VisionNetwork, path: Path) -> bool:
    """Whether there is a checkpoint of a head that was taught behind this very network."""
    return path.exists() and bool(
        read_checkpoint(path, network.mean.device)["behind"] == features_mark(network)
    )


def with_head(network: VisionNetwork, path: Path) -> tuple[VisionNetwork, int]:
    """A network with the averaged head of a checkpoint, and the steps that the head has learned.

    Folded where the network is.

    Raises:
        RequestError: the head was taught behind another network.
    """
    state = read_checkpoint(path, network.mean.device)
    check_behind(path, state["behind"], features_mark(network))
    whole = VisionNetwork(replace(network.config, areas=state["shape"]["width"]))
    assert whole.areas is not None
    whole.areas.load_state_dict(state["average"])
    if not any(isinstance(part, nn.BatchNorm2d) for part in network.modules()):
        whole.fold()
    head = {f"areas.{name}": value for name, value in whole.areas.state_dict().items()}
    others = {k: v for k, v in network.state_dict().items() if not k.startswith("areas.")}
    whole.load_state_dict(others | head)
    return whole.to(network.mean.device).eval(), int(state["step"])


__all__ = ["AreaLesson", "AreaTrainer", "AreasRecipe", "area_lessons", "train_areas", "with_head"]
