"""torchvision's detection, segmentation and classification networks.

Weights come from a file by path, or by torchvision's own download, which happens only where the
caller asks for it (`download=True`).  The networks' weights are never changed.

Beside a torch that its compiled operators were not built for, `import torchvision` fails for want
of two operators.  They are declared here in that case and suppression runs on our own, so the
networks work all the same.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vcmcodec.errors import RequestError, WeightsError
from vcmcodec.vision.backend import Features
from vcmcodec.vision.geometry import InputGeometry
from vcmcodec.vision.predictions import ClassScore, DetectedObject, LabelMap, Predictions, clip_box
from vcmcodec.vision.tasks.boxes import suppress
from vcmcodec.vision.tasks.segmentation import scaled_argmax

Pixels = npt.NDArray[np.uint8]
_MISSING = ("nms", "qnms")
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_RESNET = ("stem", "layer1", "layer2", "layer3", "layer4")
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


class _Given(nn.Module):
    """Stands in for a backbone and gives features that were computed before."""

    def __init__(self, features: Any) -> None:
        super().__init__()
        self._features = features

    def forward(self, x: Tensor) -> Any:
        return self._features


class TorchvisionBackend:
    """One of torchvision's networks.

    Split points: `backbone` of a detector or segmenter; `stem`, `layer1` .. `layer4` of a ResNet;
    `features` of a classifier that has such a part.
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
        network = models.get_model(name, **options)
        if weights is not None:
            _load_into(network, weights)
        self.network = network.eval().requires_grad_(False).to(device)
        self._device = torch.device(device)
        self._kind = _kind_of(default.__class__.__module__)
        self.tasks: tuple[str, ...] = (self._kind,)
        self._names = tuple(labels or default.meta["categories"])
        self._preset = default.transforms()
        background = self._kind != "classification" and self._names[0] == "__background__"
        self.labels = self._names[1:] if background else self._names
        self._offset = 1 if background else 0
        self.splits = self._find_splits()
        self.longer_side = 640 if self._kind == "detection" else 0
        if self._kind != "detection":
            self.longer_side = max(_preset_size(self._preset, 480, 640, self._kind))

    def _find_splits(self) -> tuple[str, ...]:
        if self._kind != "classification":
            return ("backbone",)
        if hasattr(self.network, "layer4"):
            return _RESNET
        if isinstance(getattr(self.network, "features", None), nn.Module):
            return ("features",)
        return ()

    @torch.inference_mode()
    def head(self, rgb: Pixels, split: str) -> Features:
        """See `Backend`."""
        if split not in self.splits:
            raise RequestError(f"no split point {split}; there are {', '.join(self.splits)}")
        image, geometry = self._prepare(rgb)
        if self._kind == "detection":
            scaled, _ = self.network.transform([image[0]])
            return Features(split, _named(self.network.backbone(scaled.tensors)), geometry)
        if self._kind == "segmentation":
            return Features(split, _named(self.network.backbone(image)), geometry)
        x = image
        for stage in self._stages()[: self.splits.index(split) + 1]:
            x = stage(x)
        return Features(split, {split: x}, geometry)

    def _stages(self) -> list[nn.Module]:
        net = self.network
        if self.splits == ("features",):
            return [net.features]
        stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        return [stem, net.layer1, net.layer2, net.layer3, net.layer4]

    @torch.inference_mode()
    def rest(self, features: Features, tasks: Collection[str]) -> Any:
        """See `Backend`."""
        geometry = features.geometry
        if self._kind == "classification":
            return self._classify(features)
        tensors: Any = {k.removeprefix("map "): v for k, v in features.tensors.items()}
        if list(tensors) == ["only"]:
            tensors = tensors["only"]
        # the network's own forward does the rest; the picture only says how large it is
        blank = torch.zeros((1, 3, geometry.padded_height, geometry.padded_width))
        with _backbone(self.network, _Given(tensors)):
            return self._run(blank.to(self._device))

    def _classify(self, features: Features) -> Any:
        x = features.tensors[features.split]
        net = self.network
        for stage in self._stages()[self.splits.index(features.split) + 1 :]:
            x = stage(x)
        if self.splits == ("features",):
            with _part(net, "features", _Given(x)):
                return net(x)
        return net.fc(torch.flatten(net.avgpool(x), 1))

    def _run(self, image: Tensor) -> Any:
        if self._kind == "detection":
            return self.network([image[0]])[0]
        return self.network(image)["out"]

    def _prepare(self, rgb: Pixels) -> tuple[Tensor, InputGeometry]:
        """Scaled as torchvision's preset says, whole: nothing is cropped away."""
        height, width = rgb.shape[:2]
        image = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float() / 255
        if self._kind != "detection":  # detectors scale and normalise by themselves
            size = _preset_size(self._preset, height, width, self._kind)
            image = nn.functional.interpolate(image, size, mode="bilinear", antialias=True)
            mean = torch.tensor(_MEAN).view(1, 3, 1, 1)
            image = (image - mean) / torch.tensor(_DEVIATION).view(1, 3, 1, 1)
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
        raw = self.network(image) if self._kind == "classification" else self._run(image)
        return self.results(raw, geometry, score)


def _kind_of(module: str) -> str:
    for kind in ("detection", "segmentation"):
        if f".{kind}." in module:
            return kind
    return "classification"


def _load_into(network: nn.Module, path: Path) -> None:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state)
    except Exception as error:  # zip, pickle and torch each raise their own
        raise WeightsError(f"{path} does not fit: {str(error).splitlines()[0]}") from error


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


@contextmanager
def _part(network: nn.Module, name: str, stand_in: nn.Module) -> Iterator[None]:
    own = getattr(network, name)
    setattr(network, name, stand_in)
    try:
        yield
    finally:
        setattr(network, name, own)


def _backbone(network: nn.Module, stand_in: nn.Module) -> Any:
    return _part(network, "backbone", stand_in)
