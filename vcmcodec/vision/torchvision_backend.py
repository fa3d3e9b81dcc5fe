"""torchvision's detection, segmentation and classification networks.

Weights come from a file by path, or by torchvision's own download, which happens only where the
caller asks for it (`download=True`).  The networks' weights are never changed.

Beside a torch that its compiled operators were not built for, `import torchvision` fails for want
of two operators.  They are declared here in that case and suppression runs on our own, so the
networks work all the same.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vcmcodec.colour import one_line
from vcmcodec.errors import RequestError, WeightsError
from vcmcodec.vision.backend import Features
from vcmcodec.vision.cut_classifier import (
    ClassifierModel,
    CutClassifier,
    Given,
    fingerprint,
    normal,
    replaced,
)
from vcmcodec.vision.geometry import InputGeometry
from vcmcodec.vision.predictions import ClassScore, DetectedObject, LabelMap, Predictions, clip_box
from vcmcodec.vision.tasks.boxes import suppress
from vcmcodec.vision.tasks.segmentation import scaled_argmax

Pixels = npt.NDArray[np.uint8]
_MISSING = ("nms", "qnms")
_declared: list[torch.library.Library] = []


def import_torchvision() -> ModuleType:
    """Import torchvision, with our own suppression where its operators are missing.

    Raises:
        RequestError: it is not installed, or fails for another reason.
    """
    try:
        import torchvision

        return torchvision
    except ImportError:
        raise RequestError("torchvision is not installed: pip install torchvision") from None
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise RequestError(f"torchvision cannot be imported: {error}") from error
    return _import_without_operators()


def _import_without_operators() -> ModuleType:
    if not _declared:
        # torch.library is not typed
        library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for name in _MISSING:
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.impl("nms", _nms, "CompositeExplicitAutograd")
        _declared.append(library)  # its operators live as long as it does
    for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    try:
        import torchvision
        from torchvision.ops import boxes, roi_align
    except (ImportError, RuntimeError) as error:
        raise RequestError(f"torchvision cannot be imported: {error}") from error
    boxes._assert_has_ops = lambda: None
    # its own fallback compiles itself at the first call, which takes longer than it ever saves
    module: Any = sys.modules[roi_align.__module__]
    module._roi_align = getattr(module._roi_align, "__wrapped__", module._roi_align)
    return torchvision


def _nms(dets: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    kept = suppress(
        dets.detach().float().cpu().numpy(),
        scores.detach().float().cpu().numpy(),
        np.zeros(len(dets), np.int64),
        iou_threshold,
        len(dets),
    )
    return torch.from_numpy(kept).to(dets.device)


class TorchvisionBackend:
    """One of torchvision's networks.

    Split points: `backbone` of a detector or segmenter; `stem`, `layer1` .. `layer4` of a ResNet;
    `features` of a classifier that has such a part, and inside it (`cut_classifier.block_ends`).

    Attributes:
        network: torchvision's own.
        model: a classifier, as those that train units for it need it; None for other networks.
        labels, tasks, splits, longer_side, fingerprint: see `Backend`.
    """

    def __init__(
        self,
        name: str,
        weights: Path | None = None,
        *,
        download: bool = False,
        device: str = "cpu",
        labels: tuple[str, ...] | None = None,
    ) -> None:
        """Build a network.

        Args:
            name: as `torchvision.models.get_model` knows it.
            weights: a file with the network's state dictionary (`.pth`, read without unpickling
                code, or `.safetensors`).
            download: let torchvision fetch its own weights; only without `weights`.
            device: torch device.
            labels: class names; those of torchvision's weights for this network if None.

        Raises:
            RequestError: no such network, or neither weights nor download are given.
            WeightsError: the weights do not fit.
        """
        import_torchvision()
        from torchvision import models

        if weights is None and not download:
            raise RequestError(f"torchvision:{name} needs weights: torchvision:{name}=FILE.pth")
        try:
            default = models.get_model_weights(name).DEFAULT
        except (ValueError, AttributeError) as error:
            raise RequestError(f"torchvision has no network {name}: {error}") from error
        options: dict[str, Any] = {"weights": default if weights is None else None}
        if "detection" in default.__class__.__module__ or "segmentation" in (
            default.__class__.__module__
        ):
            options["weights_backbone"] = None
        with torch.random.fork_rng(devices=[]):  # its first values are random
            try:
                network = models.get_model(name, **options)
            except (OSError, RuntimeError) as error:
                told = f"torchvision:{name} cannot be had: {one_line(error)}"
                raise WeightsError(told) from error
        if weights is not None:
            _load_into(network, weights)
        self.fingerprint = fingerprint(name, network)
        self.network: Any = network.eval().requires_grad_(False).to(device)
        self._device = torch.device(device)
        self._kind = _kind_of(default.__class__.__module__)
        self.tasks: tuple[str, ...] = (self._kind,)
        self._names = tuple(labels or default.meta["categories"])
        self._preset = default.transforms()
        background = self._kind != "classification" and self._names[0] == "__background__"
        self.labels = self._names[1:] if background else self._names
        self._offset = 1 if background else 0
        self.splits: tuple[str, ...] = ("backbone",)
        self.model: ClassifierModel | None = None
        if self._kind == "classification":
            cut = CutClassifier(self.network)
            self.splits = cut.splits
            self.model = ClassifierModel(f"torchvision:{name}", cut, self.labels, self.fingerprint)
        self.longer_side = 640 if self._kind == "detection" else 0
        if self._kind != "detection":
            self.longer_side = max(_preset_size(self._preset, 480, 640, self._kind))

    @torch.inference_mode()
    def head(self, rgb: Pixels, split: str) -> Features:
        """See `Backend`."""
        if split not in self.splits:
            raise RequestError(f"no split point {split}; there are {', '.join(self.splits)}")
        image, geometry = self._prepare(rgb)
        if self._kind == "detection":
            scaled, _ = self.network.transform([image[0]])
            maps = _named(self.network.backbone(scaled.tensors))
            return Features(split, maps, geometry, self.fingerprint)
        if self._kind == "segmentation":
            maps = _named(self.network.backbone(normal(image)))
            return Features(split, maps, geometry, self.fingerprint)
        assert self.model is not None
        tensors = self.model.network.front_end(image, split)
        return Features(split, tensors, geometry, self.fingerprint)

    @torch.inference_mode()
    def rest(self, features: Features, tasks: Collection[str]) -> Any:
        """See `Backend`."""
        geometry = features.geometry
        if self.model is not None:
            net, split = self.model.network, features.split
            return net.classify(net.deeper(features.tensors[split], split))
        tensors: Any = {k.removeprefix("map "): v for k, v in features.tensors.items()}
        if list(tensors) == ["only"]:
            tensors = tensors["only"]
        # the network's own forward does the rest; the picture only says how large it is
        blank = torch.zeros((1, 3, geometry.padded_height, geometry.padded_width))
        tail = replaced(self.network, "backbone", Given(tensors))
        return self._run(tail, blank.to(self._device))

    def _run(self, network: nn.Module, image: Tensor) -> Any:
        if self._kind == "detection":
            return network([image[0]])[0]
        out = network(normal(image))
        return out["out"] if self._kind == "segmentation" else out

    def _prepare(self, rgb: Pixels) -> tuple[Tensor, InputGeometry]:
        """Pictures in 0..1, scaled as torchvision's preset says: nothing is cropped away."""
        height, width = rgb.shape[:2]
        image = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float() / 255
        if self._kind != "detection":  # detectors scale by themselves
            size = _preset_size(self._preset, height, width, self._kind)
            image = nn.functional.interpolate(image, size, mode="bilinear", antialias=True)
        rows, columns = image.shape[2:]
        return image.to(self._device), InputGeometry(height, width, rows, columns, rows, columns)

    def results(self, raw: Any, geometry: InputGeometry, score: float) -> Predictions:
        """See `Backend`."""
        height, width = geometry.height, geometry.width
        if self._kind == "detection":
            return Predictions(height, width, self._objects(raw, geometry, score))
        if self._kind == "segmentation":
            label_map = LabelMap(scaled_argmax(raw[0].cpu(), height, width), self._names)
            return Predictions(height, width, label_map=label_map)
        shares = raw[0].softmax(0).cpu().tolist()
        ranked = sorted(zip(self.labels, shares, strict=True), key=lambda item: -item[1])
        return Predictions(height, width, classes=tuple(ClassScore(n, s) for n, s in ranked))

    def _objects(
        self, raw: Mapping[str, Tensor], geometry: InputGeometry, score: float
    ) -> tuple[DetectedObject, ...]:
        boxes = geometry.true_boxes(raw["boxes"].cpu().numpy())
        values, labels = raw["scores"].cpu().tolist(), raw["labels"].cpu().tolist()
        return tuple(
            DetectedObject(
                self._names[label], min(value, 1.0), clip_box(box, geometry.height, geometry.width)
            )
            for box, value, label in zip(boxes, values, labels, strict=True)
            if value >= score and self._offset <= label < len(self._names)
        )

    @torch.inference_mode()
    def predict(
        self, rgb: Pixels, tasks: Collection[str] | None = None, score: float = 0.3
    ) -> Predictions:
        """See `Backend`."""
        image, geometry = self._prepare(rgb)
        return self.results(self._run(self.network, image), geometry, score)


def _kind_of(module: str) -> str:
    for kind in ("detection", "segmentation"):
        if f".{kind}." in module:
            return kind
    return "classification"


def _load_into(network: nn.Module, path: Path) -> None:
    if not path.is_file():
        raise WeightsError(f"{path}: no such file of weights")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state)
    except Exception as error:  # zip, pickle and torch each raise their own
        reason = re.sub("\x1b\\[[0-9;]*m", "", one_line(error))
        raise WeightsError(f"{path} does not fit: {reason[:300]}") from error


def _named(features: Any) -> dict[str, Tensor]:
    if isinstance(features, Tensor):
        return {"only": features}
    return {f"map {name}": value for name, value in features.items()}


def _preset_size(preset: Any, height: int, width: int, kind: str) -> tuple[int, int]:
    if kind == "classification":
        side = int(preset.crop_size[0])
        return side, side
    shorter = int(preset.resize_size[0]) if preset.resize_size else min(height, width)
    scale = shorter / min(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))
