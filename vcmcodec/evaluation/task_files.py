"""Subjects without pixels: our files for machines alone, and features that nobody coded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from vcmcodec import catalogue, pretrained
from vcmcodec.evaluation.labelled import LabelledPicture
from vcmcodec.evaluation.metrics import Pixels
from vcmcodec.evaluation.subject import Subject
from vcmcodec.evaluation.task_codecs import own_file
from vcmcodec.evaluation.task_subjects import FLOOR, FULL_SIZE, Outcome, Sides, own_version
from vcmcodec.feature_parts import check_split
from vcmcodec.models import find_tasks, load_model
from vcmcodec.vision.backend import PROFILE as VISION
from vcmcodec.vision.predictions import Predictions

FROM_FILE = "from the file"
FLOAT_BYTES = 4


class UncodedFeatures:
    """What a codec of features is near-lossless to: the tensors as float32, nothing lost.

    Results are those of the codec's own network, which need not be the one that looks at others'
    pictures.
    """

    variant, ours = "features as float32", True
    settings: tuple[float, ...] = (0.0,)

    def __init__(self, codec: str, subject: Subject, tasks: tuple[str, ...]) -> None:
        """Take profile, split point and model of a codec, and what its files are asked for."""
        self.codec = codec
        self.description = f"profile {subject.profile}, features of {', '.join(tasks)}, not coded"
        self._subject, self._tasks = subject, tasks

    def run(self, picture: LabelledPicture, setting: float) -> Outcome:
        """See `ScoredSubject`; the bytes are those of the tensors that the tasks read."""
        subject, tasks = self._subject, self._tasks
        module = catalogue.profile(subject.profile).load()
        model = load_model(subject.profile, subject.model)
        split = check_split(module, model, subject.split)
        whole = module.extract(model, picture.rgb(), split, "cpu")
        read = {name: whole.tensors[name] for name in module.reads(model, split, tasks)}
        found = module.predictions(model, replace(whole, tensors=read), tasks, FLOOR, "cpu")
        return Outcome(FLOAT_BYTES * sum(tensor.numel() for tensor in read.values()), found)


def _seeing_version(model: str | None, profile: str) -> str:
    """The same with what looks at the base layer, and the network whose rest it runs."""
    words = own_version(model, profile)
    scene = pretrained.find(profile=profile, model_id=model)
    found = find_tasks(bytes.fromhex(scene.fingerprint)) if profile == "scene" else None
    if found is None:
        return words
    file, facts = found
    seeing = pretrained.find(profile=VISION, fingerprint=facts.vision)
    network = f"{seeing.id} ({seeing.sha256[:8]})"
    return f"{words}, {file.id} ({file.sha256[:8]}) on network {network}"


class FileSubject:
    """Our files for machines alone, and results from their bytes without pixels."""

    ours = True

    def __init__(
        self,
        codec: str,
        analyze: Callable[..., Predictions],
        subject: Subject,
        tasks: tuple[str, ...],
        settings: tuple[float, ...],
    ) -> None:
        """Join encoder and analysis.

        Args:
            codec: name in tables.
            analyze: as `vcmcodec.machine.analyze`.
            subject: profile, model, and the tasks that files are written for.
            tasks: what is asked of every file.
            settings: levels of the base layer, 0 to 100.
        """
        self.codec, self.settings = codec, settings
        self._analyze, self._subject, self._tasks = analyze, subject, tasks
        side = subject.longer_side
        self.variant = FROM_FILE if side is None else f"reduced to {side}" if side else FULL_SIZE
        self.version = _seeing_version(subject.model, subject.profile)
        coded = "base layer alone"
        if catalogue.profile(subject.profile).source == "features":
            coded = f"features{f' at {subject.split}' if subject.split else ''}"
        if catalogue.profile(subject.profile).source == "picture" and subject.effort == 0:
            coded += ", not adapted to the network"
        elif subject.effort:
            coded += f", adapted to the network in {subject.effort} looks"
        self.description = f"profile {subject.profile}, {coded}, analyzed for {', '.join(tasks)}"

    def run(self, picture: LabelledPicture, setting: float) -> Outcome:
        """See `TaskSubject`."""
        return self._run(picture, setting)[1]

    def show(self, picture: LabelledPicture, setting: float) -> tuple[Pixels, Outcome]:
        """See `TaskSubject`; drawn on the base layer's preview, or on the picture as given."""
        data, outcome = self._run(picture, setting)
        if catalogue.profile(self._subject.profile).source == "features":
            return picture.rgb(), outcome
        return self._subject.decode(data), outcome

    def sides(self, picture: LabelledPicture, setting: float) -> Sides:
        """See `TaskSubject`; of features the edge also runs the network up to the split point."""
        rgb = picture.rgb()

        def edge() -> bytes:
            return own_file(self._subject, rgb, setting, True)

        def server(data: bytes) -> Predictions:
            return self._analyze(data, tasks=self._tasks, score=FLOOR)

        return Sides(edge, server, counted=True)

    def uncoded(self) -> UncodedFeatures | None:
        """The same network without a file between its halves; None where pixels are coded."""
        if catalogue.profile(self._subject.profile).source != "features":
            return None
        return UncodedFeatures(self.codec, self._subject, self._tasks)

    def probe(self, rgb: Pixels) -> None:
        """Go through once with any picture, so that what is not installed is known early.

        Raises:
            VcmError: the weights that encoding or analysis needs are not there.
        """
        data = own_file(self._subject, rgb, self.settings[0], True)
        self._analyze(data, tasks=self._tasks, score=FLOOR)

    def _run(self, picture: LabelledPicture, setting: float) -> tuple[bytes, Outcome]:
        data = own_file(self._subject, picture.rgb(), setting, True)
        return data, Outcome(len(data), self._analyze(data, tasks=self._tasks, score=FLOOR))
