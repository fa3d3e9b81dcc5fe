"""Classes of a data set and of a network, matched by name.

Data sets spell the same things differently, so names are compared without case and punctuation,
and the handful that VOC and COCO call by different words are one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from vcmcodec.errors import RequestError
from vcmcodec.vision.labels import BACKGROUND
from vcmcodec.vision.predictions import ClassScore, DetectedObject

Named = TypeVar("Named", DetectedObject, ClassScore)

UNKNOWN = 255  # in a mask: pixels that are not counted

# The words of VOC for classes that COCO calls otherwise (both data sets' own class lists).
_SYNONYMS = {
    "airplane": "aeroplane",
    "motorcycle": "motorbike",
    "couch": "sofa",
    "tv": "tvmonitor",
    "television": "tvmonitor",
}


@dataclass(frozen=True)
class ClassMap:
    """Classes that data set and network share.

    Attributes:
        labels: their names as the data set spells them, in its order.
        unknown: names of the data set that the network does not know; they are left out.
        of_truth: for each class of the data set its index in `labels`, or None.
        of_network: for each of the network's names its index in `labels`.
    """

    labels: tuple[str, ...]
    unknown: tuple[str, ...]
    of_truth: tuple[int | None, ...]
    of_network: dict[str, int]

    def index_of(self, label: str) -> int | None:
        """Index in `labels` of a name of the network's or of the data set's."""
        if label in self.of_network:
            return self.of_network[label]
        return self.labels.index(label) if label in self.labels else None

    def known(self, found: Sequence[Named] | None) -> tuple[Named, ...] | None:
        """Objects or class scores of shared classes, in the data set's words; None stays None."""
        if found is None:
            return None
        indexed = ((one, self.index_of(one.label)) for one in found)
        return tuple(replace(one, label=self.labels[i]) for one, i in indexed if i is not None)

    def truth_mask(self, mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """A class mask (H, W) of the data set in shared classes: 0 background, 255 not counted."""
        table = np.full(256, UNKNOWN, np.uint8)
        table[0] = 0
        for index, shared in enumerate(self.of_truth):
            if shared is not None:
                table[index + 1] = shared + 1
        return table[mask]

    def network_mask(
        self, mask: npt.NDArray[np.uint8], names: Sequence[str]
    ) -> npt.NDArray[np.uint8]:
        """A network's label map in shared classes; what the data set has no word for is background.

        Args:
            mask: (H, W), indices into `names`.
            names: the label map's names, background among them or not.
        """
        table = np.zeros(256, np.uint8)
        for index, name in enumerate(names):
            shared = None if name == BACKGROUND else self.of_network.get(name)
            table[index] = 0 if shared is None else shared + 1
        return table[mask]


def plain_name(name: str) -> str:
    """A class name without case, spaces and punctuation, synonyms made one."""
    plain = "".join(character for character in name.lower() if character.isalnum())
    return _SYNONYMS.get(plain, plain)


def match_classes(truth: Sequence[str], network: Sequence[str]) -> ClassMap:
    """Find the classes that both sides know.

    Args:
        truth: names of the data set's classes.
        network: names that the network's results may bear.

    Raises:
        RequestError: they share none.
    """
    known = {plain_name(name) for name in network if name != BACKGROUND}
    labels = tuple(name for name in truth if plain_name(name) in known)
    if not labels:
        raise RequestError(
            "the network knows none of the data set's classes:"
            f" {', '.join(truth[:8])} against {', '.join(network[:8])}"
        )
    index = {plain_name(name): i for i, name in enumerate(labels)}
    return ClassMap(
        labels,
        tuple(name for name in truth if plain_name(name) not in known),
        tuple(index.get(plain_name(name)) for name in truth),
        {name: index[plain_name(name)] for name in network if plain_name(name) in index},
    )
