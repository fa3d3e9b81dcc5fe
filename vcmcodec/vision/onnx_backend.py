"""Any detector, classifier or segmenter in an ONNX file.

What the outputs mean is told by `OnnxSpec`; where nothing is told it is guessed from names and
shapes, which covers three usual exports:

* boxes (N, A, 4) and scores (N, A, classes) a cell, before suppression;
* boxes (k, 4), scores (k,) and labels (k,), after suppression, as torchvision exports them;
* logits (N, classes) of a classifier, or (N, classes, H, W) of a segmenter.

onnxruntime is an optional extra: `pip install vcmcodec[onnx]`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vcmcodec.errors import RequestError, WeightsError
from vcmcodec.vision.backend import Features
from vcmcodec.vision.geometry import InputGeometry, prepare
from vcmcodec.vision.predictions import ClassScore, DetectedObject, LabelMap, Predictions, clip_box
from vcmcodec.vision.tasks.boxes import suppress
from vcmcodec.vision.tasks.segmentation import scaled_argmax

Pixels = npt.NDArray[np.uint8]
SPLIT = "input"  # an ONNX graph is only cut before its first node


@dataclass(frozen=True)
class OnnxSpec:
    """What an ONNX file takes and gives.

    Attributes:
        boxes, scores, labels, logits: names of outputs; None where there is none.
        layout: of boxes: "xyxy" corners or "cxcywh" centre and size, in pixels of the input.
        label_offset: what is taken from the file's label numbers (1 where 0 is background).
        overlap: suppression threshold of boxes that come before suppression.
        mean, deviation: taken from pixels in 0..1 before the network, channel by channel.
        scale: factor on the pixels after that (255 for networks that want 0..255).
    """

    boxes: str | None = None
    scores: str | None = None
    labels: str | None = None
    logits: str | None = None
    layout: str = "xyxy"
    label_offset: int = 0
    overlap: float = 0.65
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    deviation: tuple[float, float, float] = (1.0, 1.0, 1.0)
    scale: float = 1.0


def guess_spec(outputs: Mapping[str, int]) -> OnnxSpec:
    """Tell from names and ranks of the outputs what they are.

    Raises:
        RequestError: none of them looks like boxes or logits.
    """
    names = {name.lower(): name for name in outputs}
    if "boxes" in names and "scores" in names:
        return OnnxSpec(boxes=names["boxes"], scores=names["scores"], labels=names.get("labels"))
    for name, rank in outputs.items():
        if ("logit" in name.lower() or "prob" in name.lower() or len(outputs) == 1) and rank in (
            2,
            4,
        ):
            return OnnxSpec(logits=name)
    listed = ", ".join(outputs)
    raise RequestError(f"the meaning of the ONNX outputs is not clear: {listed}; give an OnnxSpec")


def read_spec(given: Mapping[str, str]) -> OnnxSpec:
    """A spec from text, as a command line gives it: {"boxes": "output0", "layout": "cxcywh"}.

    Raises:
        RequestError: a field that text cannot set, or a value that does not fit it.
    """
    readers: dict[str, Callable[[str], Any]] = {
        "boxes": str,
        "scores": str,
        "labels": str,
        "logits": str,
        "layout": str,
        "label_offset": int,
        "overlap": float,
        "scale": float,
    }
    unknown = [name for name in given if name not in readers]
    if unknown:
        raise RequestError(f"unknown: {', '.join(unknown)}; there are {', '.join(readers)}")
    try:
        spec = OnnxSpec(**{name: readers[name](value) for name, value in given.items()})
    except ValueError as error:
        raise RequestError(f"a number is expected: {error}") from error
    if spec.layout not in ("xyxy", "cxcywh"):
        raise RequestError(f"layout {spec.layout} is neither xyxy nor cxcywh")
    if not spec.logits and not (spec.boxes and spec.scores):
        raise RequestError("either logits, or boxes and scores have to be named")
    return spec


class OnnxBackend:
    """A network in an ONNX file, run by onnxruntime on the CPU."""

    splits: tuple[str, ...] = (SPLIT,)
    fingerprint = ""

    def __init__(
        self,
        path: Path,
        *,
        spec: OnnxSpec | None = None,
        labels: tuple[str, ...] | None = None,
        longer_side: int | None = None,
        threads: int = 0,
    ) -> None:
        """Load a file.

        Args:
            path: the file.
            spec: meaning of its inputs and outputs; guessed if None.
            labels: class names; the file's own metadata entry `names` (one a line), else numbers.
            longer_side: input size where the file leaves it open; 640 if None.
            threads: of onnxruntime; 0 lets it choose.

        Raises:
            RequestError: onnxruntime is not installed, or the outputs are not understood.
            WeightsError: the file is missing or no ONNX file.
        """
        try:
            import onnxruntime
        except ImportError:
            raise RequestError(
                "ONNX files need onnxruntime, which is not installed: pip install vcmcodec[onnx]"
            ) from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises classes of its own for every cause
            raise WeightsError(f"cannot read {path}: {str(error).splitlines()[0]}") from error
        entry = self._session.get_inputs()[0]
        self._input = entry.name
        fixed = [side if isinstance(side, int) else None for side in entry.shape[-2:]]
        self._fixed = None if None in fixed else (int(fixed[0] or 0), int(fixed[1] or 0))
        self.longer_side = max(self._fixed) if self._fixed else longer_side or 640
        ranks = {out.name: len(out.shape or ()) for out in self._session.get_outputs()}
        self.spec = spec or guess_spec(ranks)
        wanted = (self.spec.boxes, self.spec.scores, self.spec.labels, self.spec.logits)
        self._wanted = [name for name in wanted if name is not None]
        missing = [name for name in self._wanted if name not in ranks]
        if missing:
            raise RequestError(f"{path} has no output {', '.join(missing)}: {', '.join(ranks)}")
        self.tasks: tuple[str, ...] = self._tasks(ranks)
        self.labels = labels or self._own_labels() or self._numbers()

    def _tasks(self, ranks: Mapping[str, int]) -> tuple[str, ...]:
        if self.spec.boxes:
            return ("detection",)
        return ("segmentation",) if ranks[str(self.spec.logits)] == 4 else ("classification",)

    def _own_labels(self) -> tuple[str, ...] | None:
        text = self._session.get_modelmeta().custom_metadata_map.get("names", "")
        return tuple(line for line in text.splitlines() if line) or None

    def _numbers(self) -> tuple[str, ...]:
        name = self.spec.logits or (self.spec.scores if not self.spec.labels else None)
        shapes = {out.name: out.shape for out in self._session.get_outputs()}
        axis = 1 if self.spec.logits else -1
        count = shapes[name][axis] if name else None
        return tuple(f"class {i}" for i in range(count if isinstance(count, int) else 1000))

    def head(self, rgb: Pixels, split: str) -> Features:
        """Scale, pad and normalise; see `Backend`."""
        if split != SPLIT:
            raise RequestError(f"an ONNX network has one split point, {SPLIT}")
        image, geometry = prepare(rgb, self.longer_side)
        if self._fixed is not None:
            image, geometry = self._fit_fixed(rgb)
        mean = torch.tensor(self.spec.mean).view(1, 3, 1, 1)
        deviation = torch.tensor(self.spec.deviation).view(1, 3, 1, 1)
        return Features(split, {SPLIT: (image - mean) / deviation * self.spec.scale}, geometry)

    def _fit_fixed(self, rgb: Pixels) -> tuple[torch.Tensor, InputGeometry]:
        assert self._fixed is not None
        rows, columns = self._fixed
        scale = min(rows / rgb.shape[0], columns / rgb.shape[1])
        image, fitted = prepare(rgb, max(1, int(scale * max(rgb.shape[:2]))))
        size = min(fitted.scaled_height, rows), min(fitted.scaled_width, columns)
        out = torch.full((1, 3, rows, columns), 114 / 255)
        out[:, :, : size[0], : size[1]] = image[:, :, : size[0], : size[1]]
        return out, InputGeometry(rgb.shape[0], rgb.shape[1], *size, rows, columns)

    def rest(self, features: Features, tasks: Collection[str]) -> Any:
        """Run the graph; see `Backend`."""
        image = features.tensors[SPLIT].contiguous().numpy()
        values = self._session.run(self._wanted, {self._input: image.astype(np.float32)})
        return dict(zip(self._wanted, values, strict=True))

    def results(self, raw: Any, geometry: InputGeometry, score: float) -> Predictions:
        """Outputs to typed results; see `Backend`."""
        height, width = geometry.height, geometry.width
        if self.spec.boxes:
            return Predictions(height, width, self._objects(raw, geometry, score))
        logits = np.asarray(raw[self.spec.logits], np.float32)[0]
        if logits.ndim == 3:
            scale = (
                logits.shape[1] / geometry.padded_height,
                logits.shape[2] / geometry.padded_width,
            )
            rows = max(1, round(geometry.scaled_height * scale[0]))
            columns = max(1, round(geometry.scaled_width * scale[1]))
            inside = torch.from_numpy(logits[:, :rows, :columns].copy())
            label_map = LabelMap(scaled_argmax(inside, height, width), self.labels)
            return Predictions(height, width, label_map=label_map)
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        ranked = sorted(zip(self.labels, shares.tolist(), strict=False), key=lambda x: -x[1])
        return Predictions(height, width, classes=tuple(ClassScore(n, s) for n, s in ranked))

    def _objects(
        self, raw: Any, geometry: InputGeometry, score: float
    ) -> tuple[DetectedObject, ...]:
        boxes = np.asarray(raw[self.spec.boxes], np.float32)
        scores = np.asarray(raw[self.spec.scores], np.float32)
        boxes = boxes.reshape(-1, 4)
        if self.spec.layout == "cxcywh":
            half = boxes[:, 2:] / 2
            boxes = np.concatenate((boxes[:, :2] - half, boxes[:, :2] + half), 1)
        if self.spec.labels:
            value = scores.reshape(-1)
            label = np.asarray(raw[self.spec.labels]).reshape(-1).astype(np.int64)
            cell = np.flatnonzero(value > score)
            value, label = value[cell], label[cell] - self.spec.label_offset
            kept = np.argsort(-value, kind="stable")
        else:
            table = scores.reshape(len(boxes), -1)
            cell, label = np.nonzero(table > score)
            value = table[cell, label]
            best = np.argsort(-value, kind="stable")[:3000]
            cell, label, value = cell[best], label[best] - self.spec.label_offset, value[best]
            kept = suppress(boxes[cell], value, label, self.spec.overlap)
        true = geometry.true_boxes(boxes)
        return tuple(
            DetectedObject(
                self.labels[int(label[i])],
                float(min(max(value[i], 0.0), 1.0)),
                clip_box(true[cell[i]], geometry.height, geometry.width),
            )
            for i in kept
            if 0 <= label[i] < len(self.labels)
        )

    def predict(
        self, rgb: Pixels, tasks: Collection[str] | None = None, score: float = 0.3
    ) -> Predictions:
        """See `Backend`."""
        features = self.head(rgb, SPLIT)
        return self.results(self.rest(features, self.tasks), features.geometry, score)
