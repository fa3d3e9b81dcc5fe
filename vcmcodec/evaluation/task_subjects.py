"""What is measured: a codec, at a size, and who looks at what comes out of its files.

A subject maps a picture and a setting to the bytes of a file and to predictions.  A codec of
pixels is one subject a size: coded as it is, and first reduced to the size at which the network
looks, whichever serves the network better.  Subjects without pixels are in `task_files`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from vcmcodec import pixels, pretrained
from vcmcodec.errors import RequestError
from vcmcodec.evaluation.labelled import LabelledPicture
from vcmcodec.evaluation.metrics import Pixels
from vcmcodec.evaluation.prediction_cache import PredictionCache, key, pixel_hash
from vcmcodec.evaluation.task_codecs import PixelCodec
from vcmcodec.vision.backend import PROFILE, Backend, open_backend
from vcmcodec.vision.geometry import InputGeometry
from vcmcodec.vision.network import PRIOR_SHARE
from vcmcodec.vision.predictions import DetectedObject, LabelMap, Predictions
from vcmcodec.vision.tasks.segmentation import LEAST, NEUTRAL

FLOOR = 0.01  # objects below this score are not handed to the evaluation
FULL_SIZE = "full size"


@dataclass(frozen=True, eq=False)
class Outcome:
    """Bytes of the whole file, and what was found in what came out of it."""

    num_bytes: int
    predictions: Predictions


@dataclass(frozen=True, eq=False)
class Sides:
    """A picture's way through a codec, in two halves; nothing is taken from a cache.

    Attributes:
        edge: from pixels in memory to the bytes of the file.
        server: from these to results.
        counted: networks run on the edge, so that there are multiplications to count.
    """

    edge: Callable[[], bytes]
    server: Callable[[bytes], Predictions]
    counted: bool


class ScoredSubject(Protocol):
    """Something whose results can be scored.

    Attributes:
        codec: name in tables; of subjects with the same name the better one is compared.
        variant: what sets it apart from those.
        ours: whether it is to be compared with the others.
        settings: of its rate curve, coarse to fine.
        description: fixed settings in words.
    """

    codec: str
    variant: str
    ours: bool
    settings: tuple[float, ...]
    description: str

    def run(self, picture: LabelledPicture, setting: float) -> Outcome:
        """Code a picture and look at what comes out."""
        ...


class TaskSubject(ScoredSubject, Protocol):
    """The same where it can also be drawn and timed."""

    def show(self, picture: LabelledPicture, setting: float) -> tuple[Pixels, Outcome]:
        """What `run` gives, and pixels to draw the predictions on."""
        ...

    def sides(self, picture: LabelledPicture, setting: float) -> Sides:
        """What sender and receiver do, each to be timed alone."""
        ...


class Judge:
    """A vision network that looks at decoded pictures."""

    def __init__(
        self, name: str, backend: Backend, fingerprint: str, tasks: Collection[str] | None = None
    ) -> None:
        """Take a network.

        Args:
            name: as reports print it.
            backend: the network.
            fingerprint: of its weights and input size; decides what a cache may reuse.
            tasks: what it is asked for; everything it can do if None.
        """
        self.name, self.backend, self.fingerprint = name, backend, fingerprint
        wanted = set(backend.tasks if tasks is None else tasks)
        if "classification" in wanted and "classification" not in backend.tasks:
            wanted.add("detection")  # presence is then the best score of a class's boxes
        self.tasks = tuple(task for task in backend.tasks if task in wanted)
        if not self.tasks:
            raise RequestError(f"{name} does none of {', '.join(tasks or ())}")

    def look(self, rgb: Pixels, height: int, width: int) -> Predictions:
        """Predictions for a picture of (height, width) from pixels that may be of another size."""
        if rgb.shape[:2] == (height, width):
            return self.backend.predict(rgb, self.tasks, FLOOR)
        if not self.backend.splits:
            return scaled(self.backend.predict(rgb, self.tasks, FLOOR), height, width)
        # Told the true size, the network scales boxes and areas itself, from what it knows exactly.
        features = self.backend.head(rgb, self.backend.splits[0])
        raw = self.backend.rest(features, self.tasks)
        geometry = replace(features.geometry, height=height, width=width)
        return self.backend.results(raw, geometry, FLOOR)

    def key(self, pixels: str, height: int, width: int) -> str:
        """Cache key of looking at pixels with this hash."""
        return key("seen", self.fingerprint, self.tasks, FLOOR, pixels, height, width)


def scaled(found: Predictions, height: int, width: int) -> Predictions:
    """Predictions of a scaled picture in pixels of the true one."""
    across, down = width / found.width, height / found.height
    objects = None
    if found.objects is not None:
        objects = tuple(
            DetectedObject(
                o.label,
                o.score,
                (o.box[0] * across, o.box[1] * down, o.box[2] * across, o.box[3] * down),
            )
            for o in found.objects
        )
    label_map = None
    if found.label_map is not None:
        image = Image.fromarray(found.label_map.labels)
        labels = np.asarray(image.resize((width, height), Image.Resampling.NEAREST))
        label_map = LabelMap(labels, found.label_map.names)
    return Predictions(height, width, objects, found.classes, label_map)


def open_judge(
    name: str | None, labels: tuple[str, ...] | None = None, tasks: Collection[str] | None = None
) -> Judge:
    """Open the network that everyone's pictures are shown to.

    Args:
        name: as `vision.backend.open_backend` takes it, or a `.pth` file beside `taps.py`.
        labels: class names of an ONNX file that does not bring its own.
        tasks: what it is asked for.
    """
    torchvision = name is not None and name.startswith("torchvision:")
    if name is not None and name.endswith(".pth") and not torchvision:
        from vcmcodec.evaluation.teachers import TeacherBackend

        backend: Backend = TeacherBackend(Path(name))
    else:
        backend = open_backend(name, labels=labels)
    if name is not None and torchvision:
        weights, title = backend.fingerprint, name.partition("=")[0]
    elif name is None or not Path(name).is_file():
        model = pretrained.find(profile=PROFILE, model_id=name)
        weights, title = model.sha256, model.id
    else:
        weights, title = hashlib.sha256(Path(name).read_bytes()).hexdigest(), Path(name).stem
    told = PRIOR_SHARE, NEUTRAL, LEAST
    print_of = key(weights, backend.longer_side, backend.labels, told)
    return Judge(f"{title} ({weights[:8]})", backend, print_of, tasks)


@dataclass(frozen=True, eq=False)
class _Source:
    """What goes into a codec, and the true size of the picture it was made from."""

    id: int
    height: int
    width: int
    rgb: Pixels
    hash: str


class PixelSubject:
    """A codec of pixels at one size, and the network that looks at what it leaves of them."""

    def __init__(
        self,
        codec: PixelCodec,
        judge: Judge,
        longer_side: int | None,
        cache: PredictionCache,
        ours: bool = False,
        coded_side: int = 0,
    ) -> None:
        """Join a codec and a network.

        Args:
            codec: the codec.
            judge: the network.
            longer_side: pictures are reduced to it before coding; None codes them as they are.
            cache: of what was coded and seen before.
            ours: see `TaskSubject`.
            coded_side: pixels to which the codec's files reduce larger pictures themselves, whose
                decoder enlarges them again; 0: not at all.
        """
        self.codec, self.ours, self.settings = codec.title, ours, codec.ladder
        self.variant = f"reduced to {longer_side}" if longer_side else FULL_SIZE
        if coded_side:
            self.variant = f"reduced to {coded_side} in the file"
        self.description = codec.description
        self._codec, self._judge, self._longer, self._cache = codec, judge, longer_side, cache
        self._version = codec.version
        self.version = codec.version or own_version(codec.model, "scene")
        self._source: _Source | None = None

    def run(self, picture: LabelledPicture, setting: float) -> Outcome:
        """See `TaskSubject`."""
        source = self._reduced(picture)
        height, width = source.height, source.width
        if self._version is not None:
            known = key(
                "coded", self._codec.name, self._version, self.description, setting, source.hash
            )
            coded = self._cache.coded(known)
            if coded is not None:
                seen = self._cache.predictions(self._judge.key(coded[1], height, width))
                if seen is not None:
                    return Outcome(coded[0], seen)
        num_bytes, decoded = self._pass(source.rgb, setting)
        shown = pixel_hash(decoded)
        if self._version is not None:
            self._cache.put_coded(known, num_bytes, shown)
        return Outcome(num_bytes, self._look(decoded, shown, height, width))

    def show(self, picture: LabelledPicture, setting: float) -> tuple[Pixels, Outcome]:
        """See `TaskSubject`; a reduced picture is enlarged again, smoothly."""
        source = self._reduced(picture)
        height, width = source.height, source.width
        num_bytes, decoded = self._pass(source.rgb, setting)
        seen = self._look(decoded, pixel_hash(decoded), height, width)
        image = Image.fromarray(decoded).resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(image), Outcome(num_bytes, seen)

    def sides(self, picture: LabelledPicture, setting: float) -> Sides:
        """See `TaskSubject`; the edge reduces the picture where this subject's are reduced."""
        rgb = picture.rgb()
        shape = self._fit(rgb).shape

        def edge() -> bytes:
            return self._codec.encode(self._fit(rgb), setting)

        def server(data: bytes) -> Predictions:
            return self._judge.look(self._decode(data, shape), *rgb.shape[:2])

        return Sides(edge, server, counted=self.ours)

    def nearest(self, picture: LabelledPicture, num_bytes: int) -> float:
        """The finest quality 0..100 whose file is no larger, or the coarsest there is."""
        rgb = self._reduced(picture).rgb
        low, high = 0, 100
        while low < high:
            middle = (low + high + 1) // 2
            if len(self._codec.encode(rgb, middle)) <= num_bytes:
                low = middle
            else:
                high = middle - 1
        return float(low)

    def _pass(self, rgb: Pixels, setting: float) -> tuple[int, Pixels]:
        data = self._codec.encode(rgb, setting)
        return len(data), self._decode(data, rgb.shape)

    def _decode(self, data: bytes, shape: tuple[int, ...]) -> Pixels:
        decoded = self._codec.decode(data)[: shape[0], : shape[1]]
        if decoded.shape != shape:
            raise RequestError(f"{self.codec} gave {decoded.shape} for {shape}")
        return np.ascontiguousarray(decoded)

    def _look(self, rgb: Pixels, shown: str, height: int, width: int) -> Predictions:
        known = self._judge.key(shown, height, width)
        seen = self._cache.predictions(known)
        if seen is None:
            seen = self._judge.look(rgb, height, width)
            self._cache.put_predictions(known, seen)
        return seen

    def _reduced(self, picture: LabelledPicture) -> _Source:
        if self._source is None or self._source.id != picture.id:
            rgb = picture.rgb()
            height, width = rgb.shape[:2]
            rgb = self._fit(rgb)
            self._source = _Source(picture.id, height, width, rgb, pixel_hash(rgb))
        return self._source

    def _fit(self, rgb: Pixels) -> Pixels:
        """The picture at the size at which it is coded."""
        if self._longer is None or max(rgb.shape[:2]) <= self._longer:
            return rgb
        return reduce(rgb, self._longer)


def reduce(rgb: Pixels, longer_side: int) -> Pixels:
    """A picture at the size that a network would scale it to, by the same filter."""
    fitted = InputGeometry.fit(rgb.shape[0], rgb.shape[1], longer_side)
    return pixels.reduce(rgb, (fitted.scaled_height, fitted.scaled_width))


class Uncompressed:
    """The network on the pictures as they are; the bytes are those of the given files."""

    codec, variant, ours = "uncompressed", FULL_SIZE, False
    settings: tuple[float, ...] = (0.0,)
    description = "the pictures as given"

    def __init__(self, judge: Judge, cache: PredictionCache) -> None:
        """Take the network."""
        self._judge, self._cache = judge, cache

    def run(self, picture: LabelledPicture, setting: float) -> Outcome:
        """See `TaskSubject`."""
        return self.show(picture, setting)[1]

    def show(self, picture: LabelledPicture, setting: float) -> tuple[Pixels, Outcome]:
        """See `TaskSubject`."""
        rgb = picture.rgb()
        known = self._judge.key(pixel_hash(rgb), *rgb.shape[:2])
        seen = self._cache.predictions(known)
        if seen is None:
            seen = self._judge.look(rgb, *rgb.shape[:2])
            self._cache.put_predictions(known, seen)
        return rgb, Outcome(len(picture.data), seen)

    def sides(self, picture: LabelledPicture, setting: float) -> Sides:
        """See `TaskSubject`; the edge sends the file as it was given."""

        def server(data: bytes) -> Predictions:
            rgb = replace(picture, data=data).rgb()
            return self._judge.look(rgb, *rgb.shape[:2])

        return Sides(lambda: picture.data, server, counted=False)


def own_version(model: str | None, profile: str) -> str:
    """Our model in words: its name and the start of its weights' hash."""
    found = pretrained.find(profile=profile, model_id=model)
    return f"model {found.id} ({found.sha256[:8]})"
