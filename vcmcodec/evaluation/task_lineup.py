"""From names on a command line to networks, codecs and subjects, in every process alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vcmcodec import machine
from vcmcodec.catalogue import Variant
from vcmcodec.errors import RequestError, VcmError
from vcmcodec.evaluation.prediction_cache import PredictionCache
from vcmcodec.evaluation.subject import Subject
from vcmcodec.evaluation.task_bench import Lineup
from vcmcodec.evaluation.task_codecs import (
    BASE_LADDER,
    BASE_NAMES,
    FEATURE_LADDER,
    FEATURE_VARIANTS,
    OWN_NAMES,
    PIXEL_NAMES,
    default_side,
    open_own,
    open_rival,
)
from vcmcodec.evaluation.task_files import FileSubject
from vcmcodec.evaluation.task_subjects import (
    Judge,
    PixelSubject,
    TaskSubject,
    Uncompressed,
    open_judge,
)
from vcmcodec.vision.network import TASKS

PLAIN = "base-plain"


@dataclass(frozen=True)
class Plan:
    """What to measure, in words; calling it opens everything.

    Attributes:
        codecs: of `task_codecs.OWN_NAMES` and `RIVAL_NAMES`, in the order of the tables.
        judge: the network, as `task_subjects.open_judge` takes it; None for the reference one.
        judge_labels: class names of an ONNX file without its own.
        tasks: what is asked; None for everything that the network can do.
        base_ladder: levels of our base layer and of features; None for those of `task_codecs`.
        base_sides: pixels to which pictures are reduced for our base layer, 0 for not at all; None
            for both full size and what the tasks model asks for.
        model: name of our model.
        threads: of AVIF and HEVC.
        cache: file of kept results; None keeps nothing.
    """

    codecs: tuple[str, ...]
    judge: str | None = None
    judge_labels: tuple[str, ...] | None = None
    tasks: tuple[str, ...] | None = None
    base_ladder: tuple[float, ...] | None = None
    base_sides: tuple[int, ...] | None = None
    model: str | None = None
    threads: int = 1
    cache: Path | None = None

    def __call__(self) -> Lineup:
        """Open the network and every codec.

        Raises:
            RequestError: an unknown codec, or none of those asked for can be run here.
        """
        judge = open_judge(self.judge, self.judge_labels, self.tasks)
        cache = PredictionCache(self.cache)
        subjects: list[TaskSubject] = []
        missing: list[str] = []
        versions: dict[str, str] = {}
        for name in self.codecs:
            opened = self._open(name, judge, cache)
            if isinstance(opened, str):
                missing.append(opened)
            else:
                subjects += opened
                versions |= {one.codec: one.version for one in opened}
        if not subjects:
            raise RequestError(f"no codec can be run: {'; '.join(missing) or 'none was named'}")
        return Lineup(
            Uncompressed(judge, cache),
            tuple(subjects),
            judge.name,
            tuple(judge.backend.labels),
            tuple(missing),
            versions,
            tuple(
                uncoded
                for one in subjects
                if isinstance(one, FileSubject) and (uncoded := one.uncoded()) is not None
            ),
        )

    def _open(
        self, name: str, judge: Judge, cache: PredictionCache
    ) -> list[PixelSubject] | list[FileSubject] | str:
        """Subjects of one codec, or why there are none."""
        if name in PIXEL_NAMES:
            own = open_own(name, self.model, self.base_ladder)
            # Given at full size: what our files reduce, they reduce themselves.
            return [PixelSubject(own, judge, None, cache, ours=True, coded_side=own.coded_side)]
        if name in OWN_NAMES:
            return self._open_file(name.removeprefix("vcm-"))
        rival = open_rival(name, self.threads)
        if isinstance(rival, str):
            return rival
        sizes = (None, judge.backend.longer_side)
        return [PixelSubject(rival, judge, size, cache) for size in sizes]

    def _open_file(self, name: str) -> list[FileSubject] | str:
        """Our files of a profile of features, or of the base layer of pictures, without pixels."""
        if self.judge is not None:
            return f"vcm {name}: it brings its own network and cannot be judged by another"
        profile, variant = FEATURE_VARIANTS.get(name, ("scene", Variant()))
        is_base = f"vcm-{name}" in BASE_NAMES
        usual = is_base and name != PLAIN  # adapted as often as the tasks model asks for
        ladder = self.base_ladder or (BASE_LADDER if is_base else FEATURE_LADDER)
        try:
            opened = []
            for side in self._sides(name) if is_base else (None,):
                subject = Subject(
                    tasks=("detection",) if is_base else self.tasks or TASKS,
                    profile=profile,
                    longer_side=side,
                    effort=None if usual else variant.effort,
                    model=self.model if is_base else None,
                    split=variant.split,
                )
                tasks = self.tasks or TASKS
                opened.append(FileSubject(f"vcm {name}", machine.analyze, subject, tasks, ladder))
                opened[-1].probe(np.zeros((32, 32, 3), np.uint8))
        except VcmError as error:
            return f"vcm {name}: {str(error).split(';')[0]}"
        return opened

    def _sides(self, name: str) -> tuple[int, ...]:
        """Pixels to which pictures are reduced for our base layer; 0 for full size.

        At full size nothing is adapted, so it stands for both, once.
        """
        if self.base_sides is not None:
            return self.base_sides
        reduced = default_side(self.model)
        if not reduced:
            return (0,)
        return (reduced,) if name == PLAIN else (0, reduced)
