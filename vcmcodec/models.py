"""Loads weights once: from a manifest's file to a model that codes."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vcmcodec import catalogue, pretrained
from vcmcodec.errors import RequestError, WeightsError
from vcmcodec.torch_state import fast_bfloat16, loading

if TYPE_CHECKING:
    from torch import Tensor

    from vcmcodec.nn.feature_transform import FeatureTransform
    from vcmcodec.nn.model_tensors import Model
    from vcmcodec.nn.task_tensors import TaskFacts, Unpacked
    from vcmcodec.vision.sight import Sight
    from vcmcodec.vision.weights import VisionModel

TASKS_PROFILE = "tasks"  # of feature transforms in a manifest


@dataclass(frozen=True, eq=False)
class TasksModel:
    """What answers a machine's questions from a base latent.

    Attributes:
        id: name of the model.
        transform: base latent -> split tensor.
        vision: the network behind the split point.
        replaced: tensors of its first stages that learned on previews, by their names.
        sight: the network as a measure of what a base layer loses; None where the model does not
            say what its channels count.
        facts: what the weight file says of itself.
    """

    id: str
    transform: FeatureTransform
    vision: VisionModel
    replaced: Mapping[str, Tensor]
    sight: Sight | None
    facts: TaskFacts

    def looks_at_preview(self, true: tuple[int, ...], coded: tuple[int, ...]) -> bool:
        """Whether the network is shown a preview of a picture, not its latent.

        A latent cannot be scaled, so it is wherever the picture is not coded at the size at which
        the network would look at it; smaller pictures are looked at as they are.

        Args:
            true: height and width of the picture.
            coded: those at which it is coded.
        """
        from vcmcodec.vision.geometry import InputGeometry

        longer = self.vision.longer_side
        if coded == true and max(true) <= longer:
            return False
        wanted = InputGeometry.fit(true[0], true[1], longer)
        # one pixel more or less is how the two are rounded
        away = coded[0] - wanted.scaled_height, coded[1] - wanted.scaled_width
        return max(map(abs, away)) > 1

    def seeing_previews(self, quality: float) -> VisionModel:
        """The network for previews of base layers of a quality, 0..100.

        Its first stages are a mixture of those that learned on previews and the network's own: the
        finer a preview, the more it is like the picture itself.
        """
        return _mixture(self, self.facts.share_at(quality))


@functools.lru_cache(maxsize=8)  # 1 MB each
@loading()  # gradients may pass through it later
def _mixture(model: TasksModel, share: float) -> VisionModel:
    """The model's network with a share of the replaced tensors, the rest its own."""
    import torch

    network = copy.copy(model.vision.network)
    network._modules = dict(network._modules)
    with torch.no_grad():
        for name in sorted({name.partition(".")[0] for name in model.replaced}):
            network._modules[name] = copy.deepcopy(network._modules[name])
        state = network.state_dict()
        for name, value in model.replaced.items():
            state[name].lerp_(value.to(state[name]), share)
    return dataclasses.replace(model.vision, network=network)


def load_model(
    profile: str,
    model_id: str | None = None,
    *,
    fingerprint: bytes | None = None,
    device: str = "cpu",
) -> Model:
    """The model of that profile, name or fingerprint, on a device.

    Raises:
        WeightsError: it is not installed, damaged, or not the one that the fingerprint names.
        RequestError: there is no such device.
    """
    file = pretrained.find(profile=profile, model_id=model_id, fingerprint=fingerprint)
    path = pretrained.checked_path(file)
    model = _load(path, device, file.profile, pretrained.stamp(path))
    if fingerprint is not None and model.fingerprint != fingerprint:
        raise WeightsError(f"model {file.id} is not the one that its manifest describes")
    return model


@functools.lru_cache(maxsize=4)
@loading()
def _load(path: Path, device: str, profile: str, stamp: tuple[int, int]) -> Model:
    import torch

    model: Model = catalogue.profile(profile).load().read_model(*_read(path))
    try:
        model.to(torch.device(device))
    except (RuntimeError, AssertionError) as error:
        raise RequestError(f"no device {device}: {str(error).splitlines()[0]}") from error
    return model


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a weight file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as weights:
            metadata = weights.metadata() or {}
            tensors = {name: weights.get_tensor(name) for name in weights.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a weight file: {error}") from error
    return tensors, metadata


# ---- what machines need of a base layer


def find_tasks(scene: bytes) -> tuple[pretrained.ModelFile, TaskFacts] | None:
    """The tasks model that was trained on the latents of a picture model; None where none is.

    Args:
        scene: fingerprint of the picture model, as in a file's header.

    Raises:
        WeightsError: a weight file of this kind is missing or damaged.
    """
    listed = [file for file in pretrained.models() if file.profile == TASKS_PROFILE]
    for file in sorted(listed, key=lambda file: not file.default):
        path = pretrained.checked_path(file)
        facts = _task_facts(path, pretrained.stamp(path))
        if facts.scene == scene.hex():
            return file, facts
    return None


def load_tasks(scene: bytes, *, device: str = "cpu") -> TasksModel:
    """Load the tasks model that fits a picture model, and the vision network that it goes with.

    Args:
        scene: fingerprint of the picture model, as in a file's header.
        device: where both run.

    Raises:
        WeightsError: none fits, or the vision network that it was trained with is not installed.
        RequestError: there is no such device.
    """
    found = find_tasks(scene)
    if found is None:
        raise WeightsError(
            f"no tasks model reads the base layer of scene model {scene.hex()}; install one that"
            " was trained for it, or decode the file and analyze its picture"
        )
    from vcmcodec.vision.backend import PROFILE

    file, facts = found
    seeing = pretrained.find(profile=PROFILE, fingerprint=facts.vision)
    path = pretrained.checked_path(seeing)
    stamps = pretrained.stamp(file.path), pretrained.stamp(path)
    return _load_tasks(file.id, file.path, path, device, stamps)


def default_base_quality(
    scene: bytes, tasks: tuple[str, ...], *, reduced: bool = False, adapted: bool = False
) -> float | None:
    """The lowest quality of the base layer that serves all of some machine tasks, 0..100.

    Args:
        scene: fingerprint of the picture model.
        tasks: names of machine tasks.
        reduced: whether the picture is reduced before it is coded.
        adapted: whether the base layer is adapted to the network.

    Returns:
        None where no tasks model is installed for this picture model, or where it does not speak
        of one of these tasks.
    """
    found = find_tasks(scene) if tasks else None
    if found is None or not set(tasks) <= set(found[1].base_quality):
        return None
    facts = found[1]
    known = facts.reduced_quality if reduced else facts.base_quality
    known = facts.adapted_quality if adapted else known
    return max(known[task] for task in tasks)


def default_effort(scene: bytes) -> int:
    """How often the network looks while a base layer for machines alone is adapted; 0: never.

    Args:
        scene: fingerprint of the picture model.
    """
    found = find_tasks(scene)
    return 0 if found is None else found[1].effort


def default_longer_side(scene: bytes) -> int | None:
    """Pixels to which pictures that machines alone will look at are reduced; None: they are not.

    Args:
        scene: fingerprint of the picture model.
    """
    found = find_tasks(scene)
    return None if found is None else found[1].longer_side


@functools.lru_cache(maxsize=16)
def _task_facts(path: Path, stamp: tuple[int, int]) -> TaskFacts:
    from safetensors import SafetensorError, safe_open

    from vcmcodec.nn.task_tensors import read_facts

    try:
        with safe_open(path, framework="pt") as weights:
            return read_facts(weights.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a weight file: {error}") from error


@functools.lru_cache(maxsize=4)
@loading()
def _load_tasks(
    model_id: str, path: Path, vision_path: Path, device: str, stamps: tuple[tuple[int, int], ...]
) -> TasksModel:
    from vcmcodec.nn.task_tensors import unpack
    from vcmcodec.vision import weights
    from vcmcodec.vision.sight import Sight

    found = unpack(*_read(path))
    try:
        vision = weights.load(vision_path, device)
        transform = found.transform.to(device)
        counts = {depth: value.to(device) for depth, value in found.sight.items()}
    except (RuntimeError, AssertionError) as error:
        raise RequestError(f"no device {device}: {str(error).splitlines()[0]}") from error
    _check_fit(vision, found)
    transform.mixed = fast_bfloat16(device)
    sight = Sight(vision.network, counts) if counts else None
    return TasksModel(model_id, transform, vision, found.replaced, sight, found.facts)


def _check_fit(vision: VisionModel, found: Unpacked) -> None:
    """Raise WeightsError unless a tasks model's tensors fit the vision network."""
    from vcmcodec.vision.sight import DEPTHS
    from vcmcodec.vision.split import split_points

    facts = found.facts
    if vision.fingerprint != facts.vision:
        raise WeightsError(
            f"the tasks model goes with vision network {facts.vision}; the one that is installed as"
            f" such is {vision.fingerprint}"
        )
    points = split_points(vision.network.config)
    if facts.split not in points or len(points[facts.split].channels) != 1:
        raise WeightsError(f"a tasks model cannot join at split point {facts.split}")
    (wanted,) = points[facts.split].channels.values()
    if wanted != facts.config.channels:
        raise WeightsError(
            f"the tasks model makes {facts.config.channels} channels for split point"
            f" {facts.split}, the vision network has {wanted}"
        )
    state = vision.network.state_dict()
    for name, value in found.replaced.items():
        if name not in state or state[name].shape != value.shape:
            raise WeightsError(f"the vision network has no {name} of shape {tuple(value.shape)}")
    channels = {name: count for point in points.values() for name, count in point.channels.items()}
    shapes = {name: (channels[name], 1, 1) for name in DEPTHS}
    if found.sight and {name: tuple(v.shape) for name, v in found.sight.items()} != shapes:
        raise WeightsError("what errors count is not told of the vision network's channels")
