"""The picture model and the vision network of this installation that a tasks model joins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vcmcodec import codec, pretrained
from vcmcodec.models import load_model, load_tasks
from vcmcodec.nn.gain import RATE_LEVEL_MAX
from vcmcodec.pretrained import ModelFile
from vcmcodec.profiles.scene import NAME as SCENE
from vcmcodec.reader import Reader
from vcmcodec.training import tasks_export
from vcmcodec.training.photographs import Views
from vcmcodec.training.tasks import TasksRecipe, TasksTrainer, Taught
from vcmcodec.vision import weights
from vcmcodec.vision.backend import PROFILE as VISION


@dataclass(frozen=True)
class Installed:
    """A picture model and a vision network of this installation.

    Attributes:
        scene, vision: their lines of the manifest.
    """

    scene: ModelFile
    vision: ModelFile

    @classmethod
    def find(cls, scene: str | None = None, vision: str | None = None) -> Installed:
        """Look both up by their names, or take the defaults."""
        return cls(
            pretrained.find(profile=SCENE, model_id=scene),
            pretrained.find(profile=VISION, model_id=vision),
        )

    def trainer(self, recipe: TasksRecipe, views: Views, *, start: bool = False) -> TasksTrainer:
        """A trainer over real files: what is coded is decoded from its bytes.

        With `start` it begins with the tasks model that is installed for the picture model.

        Raises:
            WeightsError: none is.
        """
        codec = load_model(SCENE, self.scene.id).codec
        network = weights.load(pretrained.checked_path(self.vision)).network
        trainer = TasksTrainer(
            recipe, self.latents, views, network,
            levels=codec.latent.levels, synthesis=codec.synthesis,
            behind=f"scene {self.scene.fingerprint}, vision {self.vision.fingerprint}",
        )  # fmt: skip
        if start:
            trainer.start_from(load_tasks(bytes.fromhex(self.scene.fingerprint)))
        return trainer

    def latents(self, images: Tensor, rate_level: int, adapted: bool) -> Tensor:
        """Write the base layer of each view to a file, and decode its latent."""
        effort, found = None if adapted else 0, []
        for rgb in (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy():
            quality = rate_level * 100 / RATE_LEVEL_MAX
            data = codec.encode(
                rgb, tasks=["detection"], base_quality=quality, effort=effort, model=self.scene.id
            )
            with Reader(data) as reader:
                found.append(reader.latent().latent)
        return torch.stack(found).clone()  # no tensor of inference mode

    def export(
        self, trainer: TasksTrainer, taught: Taught, folder: Path, model_id: str, *,
        base_quality: dict[str, float], reduced_quality: dict[str, float],
        adapted_quality: dict[str, float], longer_side: int | None, effort: int,
    ) -> Path:  # fmt: skip
        """Write what was taught as a tasks model; returns the weight file's path."""
        return tasks_export.export(
            taught.transform, folder, model_id, scene=self.scene.fingerprint,
            vision=self.vision.fingerprint, base_quality=base_quality,
            reduced_quality=reduced_quality, adapted_quality=adapted_quality,
            replaced=taught.front.tensors(), effort=effort, sight=trainer.eyes.weights,
            sight_prices=trainer.recipe.sight_prices,
            preview_shares=trainer.preview_shares(taught.front),
            longer_side=longer_side, facts={"steps": trainer.step},
        )  # fmt: skip
