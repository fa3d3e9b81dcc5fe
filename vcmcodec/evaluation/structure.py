"""What structure costs: layers, refinement and groups against a plain file of the same weights.

The anchor is one level, one group: `--task human`.  Each variant adds one thing, and its BD-rate
against the anchor is what that thing costs at equal PSNR.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vcmcodec.evaluation.corpora import (
    NamedPicture,
    keep_largest_groups,
    list_pictures,
    read_group_mask,
    read_picture,
)
from vcmcodec.evaluation.environment import Environment, describe_environment
from vcmcodec.evaluation.rate_curve import Measurement, RateCurve, average_curve
from vcmcodec.evaluation.rate_distortion import Comparison, compare, score
from vcmcodec.evaluation.report import Table, comparison_table, environment_note, points_table
from vcmcodec.evaluation.subject import LADDER, Subject


@dataclass(frozen=True)
class Variant:
    """One way to write the file.

    Attributes:
        title: name in tables.
        subject: the arguments.
        groups: how many groups are kept of the picture's map: 0 for no map, None for all.
    """

    title: str
    subject: Subject
    groups: int | None


PLAIN = Variant("plain", Subject(title="plain"), 0)
LAYERED = Variant("layers", Subject(title="layers", tasks=None), 0)
GROUPED = (
    Variant("all groups", Subject(title="all groups"), None),
    Variant("three groups", Subject(title="three groups"), 3),
    Variant("two groups", Subject(title="two groups"), 2),
    Variant("layers and groups", Subject(title="layers and groups", tasks=None), None),
)


@dataclass(frozen=True)
class Structure:
    """Result of one run; `groups` is the mean number of groups of each variant with a map."""

    pictures: tuple[str, ...]
    curves: tuple[RateCurve, ...]
    comparisons: tuple[Comparison, ...]
    groups: dict[str, float]
    measurements: tuple[Measurement, ...]
    environment: Environment


def _measure(
    variant: Variant, picture: NamedPicture, quality: float, maps: Path | None
) -> tuple[Measurement, int]:
    """Return the figures of one file, and its number of groups."""
    mask, count = None, 1
    if variant.groups != 0 and maps is not None:
        mask = read_group_mask(maps, picture)
        if variant.groups is not None:
            mask = keep_largest_groups(mask, variant.groups)
        count = len(set(mask.ravel().tolist()))
    data = variant.subject.encode(picture.rgb, quality, groups=mask)
    decoded = variant.subject.decode(data)
    return score(variant.title, picture, quality, data, decoded), count


def run(
    folder: Path,
    *,
    maps: Path | None = None,
    qualities: Sequence[float] = LADDER,
    limit: int | None = None,
    model: str | None = None,
    threads: int = 1,
    progress: Callable[[str], None] = lambda _: None,
) -> Structure:
    """Measure every variant on the pictures of a folder.

    Args:
        folder: pictures.
        maps: group maps, `NAME.png` for each picture; without them only layers are measured.
        qualities: ladder of all variants.
        limit: only so many pictures, in order of name.
        model: name of our model; None for the default.
        threads: what torch was set to; reported.
        progress: called with one line before each piece of work.

    Raises:
        RequestError: no pictures.
        PictureError: a picture or map cannot be read.
    """
    variants = tuple(
        replace(variant, subject=replace(variant.subject, model=model))
        for variant in (PLAIN, LAYERED, *(GROUPED if maps is not None else ()))
    )
    measured: dict[str, list[Measurement]] = {variant.title: [] for variant in variants}
    counts: dict[str, list[int]] = {v.title: [] for v in variants if v.groups != 0}
    names = []
    for path in list_pictures(folder, limit):
        picture = read_picture(path)
        names.append(picture.name)
        for variant in variants:
            progress(f"{picture.name}: {variant.title}")
            for quality in qualities:
                measurement, count = _measure(variant, picture, quality, maps)
                measured[variant.title].append(measurement)
            if variant.title in counts:
                counts[variant.title].append(count)
    anchor = measured[PLAIN.title]
    return Structure(
        pictures=tuple(names),
        curves=tuple(average_curve(title, side) for title, side in measured.items()),
        comparisons=tuple(
            compare(anchor, side, "psnr")
            for title, side in measured.items()
            if title != PLAIN.title
        ),
        groups={title: sum(each) / len(each) for title, each in counts.items()},
        measurements=tuple(m for side in measured.values() for m in side),
        environment=describe_environment(threads),
    )


def tables(result: Structure) -> tuple[Table, ...]:
    """Return the result as tables."""
    cost = comparison_table(result.comparisons, "What structure costs")
    groups = ", ".join(f"{title} {mean:.1f}" for title, mean in result.groups.items())
    notes = (
        (
            "plain: one level, one group (tasks: human). layers: tasks all, the base at its own "
            "level, refined. Groups: from the maps given; two and three keep the largest ones."
        ),
        *((f"Groups a picture: {groups}.",) if groups else ()),
        f"Pictures ({len(result.pictures)}): {', '.join(result.pictures)}.",
        environment_note(result.environment),
    )
    noted = Table(cost.title, cost.columns, cost.rows, (*cost.notes, *notes))
    return points_table(result.curves), noted
