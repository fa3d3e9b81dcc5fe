"""What the parts of a semantic run are worth: linear probes, bits, errors, arithmetic.

A probe is a ridge regression from pooled features to which classes a picture shows; it has one
number to choose, fixed here, and a unique solution, so that two runs differ by their features
alone.  Rates are those that training estimates, for a picture without a header.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vcmcodec.evaluation.labelled import LabelledSet
from vcmcodec.evaluation.task_scores import score_presence
from vcmcodec.nn.pyramid_codec import LATENT_STRIDE
from vcmcodec.nn.semantic_codec import SemanticCodec
from vcmcodec.training import semantic_features, semantic_run
from vcmcodec.training.coder import Learned
from vcmcodec.training.semantic import Draw, code, depths, errors, spreads
from vcmcodec.vision import generic
from vcmcodec.vision.generic import GenericNetwork, price
from vcmcodec.vision.geometry import prepare

LEVELS = (1000, 4000, 7000, 10000)
RIDGE = 0.1  # of the mean square of a standardised feature

Floats = npt.NDArray[np.float64]
See = Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True)
class Probe:
    """One feature under a linear probe.

    Attributes:
        name: which feature.
        presence: mean average precision over classes, percent.
        bpp: estimated bits a pixel of the network's input; NaN where nothing is coded.
        errors: of the depths, relative to their variance.
    """

    name: str
    presence: float
    bpp: float = float("nan")
    errors: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Findings:
    """All probes of one run.

    Attributes:
        run: name of the folder.
        options: recipe options that an ablation would change.
        probes: the coarsest rate last.
        kept: share of the feature's energy that passes the filter.
        price: bits a value of the filtered feature; see `vision.generic.price`.
        closed: share of the gates that are shut.
        macs: thousands of multiplications a pixel, of the codec's encoder and decoder.
    """

    run: str
    options: dict[str, Any]
    probes: tuple[Probe, ...]
    kept: float
    price: float
    closed: float
    macs: tuple[float, float]


def pooled(network: GenericNetwork, feature: Tensor) -> Tensor:
    """Means of all depths and maxima of the deepest one, (values,)."""
    seen = depths(network, feature)
    parts = [value[0].mean((1, 2)) for value in seen.values()]
    return torch.cat([*parts, seen["c5"][0].amax((1, 2))])


def look(labelled: LabelledSet) -> tuple[list[Tensor], Floats]:
    """Network inputs of labelled pictures, and which classes each shows: 1, 0, -1 unknown."""
    rows = {int(image["id"]): row for row, image in enumerate(labelled.images)}
    images, order = [], []
    for picture in labelled.pictures():
        images.append(prepare(picture.rgb(), semantic_run.LONGER_SIDE)[0])
        order.append(rows[picture.id])
    return images, labelled.presence()[order].astype(np.float64)


def fit(inputs: Floats, targets: Floats) -> tuple[Floats, Floats, Floats]:
    """Ridge regression: mean and deviation of the inputs, and weights with a constant first."""
    mean, deviation = inputs.mean(0), inputs.std(0) + 1e-6
    known = np.c_[np.ones(len(inputs)), (inputs - mean) / deviation]
    gram = known.T @ known + RIDGE * len(known) * np.diag(np.r_[0.0, np.ones(inputs.shape[1])])
    return mean, deviation, np.linalg.solve(gram, known.T @ (targets == 1))


def score(
    train: tuple[Floats, Floats], test: tuple[Floats, Floats], labels: Sequence[str]
) -> float:
    """Mean average precision of a probe fitted on one set and tried on the other, percent."""
    mean, deviation, weights = fit(*train)
    scores = np.c_[np.ones(len(test[0])), (test[0] - mean) / deviation] @ weights
    found = score_presence(test[1].astype(np.int8), scores, labels)
    return float(np.mean(list(found.values())))


@dataclasses.dataclass(frozen=True)
class Sets:
    """Labelled pictures to fit probes on, and others to try them on."""

    train: tuple[list[Tensor], Floats]
    test: tuple[list[Tensor], Floats]
    labels: tuple[str, ...]

    def probe(self, network: GenericNetwork, see: See) -> float:
        """Score the features that `see` finds in network inputs."""
        both = [
            (np.stack([pooled(network, see(one)).double().numpy() for one in images]), truth)
            for images, truth in (self.train, self.test)
        ]
        return score(both[0], both[1], self.labels)


def read_sets(train: Path, test: Path, files: Path | None, limit: int | None) -> Sets:
    """Read labels and pictures; `limit` applies to each set."""
    first, second = LabelledSet(train, files, limit), LabelledSet(test, files, limit)
    return Sets(look(first), look(second), second.labels)


@torch.inference_mode()
def run(
    folder: Path, sets: Sets, *, levels: Sequence[int] = LEVELS, say: Callable[[str], None] = print
) -> Findings:
    """Probe the features of a run, clean and decoded, and those of a random start.

    Args:
        folder: of all stages; features must be done, the codec may be.
        levels: rate levels that are tried.
    """
    path = semantic_run.result(folder, semantic_features.STAGE)
    network, _ = generic.rounded(semantic_run.read_network(path))
    torch.manual_seed(1)
    start = GenericNetwork(network.network.config, filtered=network.filtered)
    _settle(start, sets.train[0])
    options = _options(
        semantic_run.facts_of(path), ("guided", "filtered", "dense", "price", "retained")
    )
    probes = [Probe("random start", sets.probe(start, start.feature))]
    say(f"{folder.name}: random start {probes[0].presence:.1f}")
    probes.append(Probe("self-supervised", sets.probe(network, network.feature)))
    say(f"{folder.name}: self-supervised {probes[1].presence:.1f}")
    macs = (float("nan"), float("nan"))
    if (folder / f"{semantic_run.STAGE}.safetensors").exists():
        learned, _ = semantic_run.read_codec(folder)
        done = semantic_run.facts_of(semantic_run.result(folder, semantic_run.STAGE))
        options |= _options(done, ("kind", "checkerboard"))
        encoder, decoder = learned.codec.macs()
        macs = encoder / 1000, decoder / 1000
        for level in levels:
            probes.append(_coded(network, learned, sets, level))
            say(f"{folder.name}: level {level / 100:g}: {probes[-1].bpp:.4f} bpp")
    kept, cost, closed = _filter(network, sets.test[0])
    return Findings(folder.name, options, tuple(probes), kept, cost, closed, macs)


def _options(facts: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: facts["recipe"][name] for name in names}


def _settle(network: GenericNetwork, images: Sequence[Tensor]) -> None:
    """Give a network that never learned the norms' statistics that it would have."""
    semantic_features.recalibrate([network.network])
    for image in images[:20]:
        network.deeper(network.feature(image))
    network.eval()


def _coded(
    network: GenericNetwork, learned: Learned[SemanticCodec], sets: Sets, level: int
) -> Probe:
    """Probe what comes out of the codec at one level; the probe is fitted at that level too."""
    spent: list[float] = []
    wrong: list[dict[str, float]] = []
    unit = spreads(network, [network.feature(image) for image in sets.train[0][:32]])

    def see(image: Tensor) -> Tensor:
        feature = network.feature(image)
        side = feature.shape[2] // 2, feature.shape[3] // 2
        plan = Draw(level, np.zeros(side, np.int64))
        decoded, bits = code(learned.codec, learned.prior, feature, plan, noisy=False)
        spent.append(float(bits) / (side[0] * side[1] * LATENT_STRIDE**2))
        parts = errors(network, decoded, feature, unit)
        wrong.append({name: float(value) for name, value in parts.items()})
        return decoded

    presence = sets.probe(network, see)
    tried = slice(len(sets.train[0]), None)
    means = {name: float(np.mean([one[name] for one in wrong[tried]])) for name in wrong[0]}
    return Probe(f"level {level / 100:g}", presence, float(np.mean(spent[tried])), means)


def _filter(network: GenericNetwork, images: Sequence[Tensor]) -> tuple[float, float, float]:
    """Energy that passes the filter, its price, and gates that are shut."""
    raw = [network.network.front_end(image, "c3")["c3"] for image in images[:64]]
    energy = float(np.mean([float(one.square().mean()) for one in raw]))
    scale = torch.tensor(energy).sqrt()
    passed = [network.filter(one) for one in raw]
    kept = float(np.mean([float(one.square().mean()) for one in passed])) / max(energy, 1e-12)
    cost = float(np.mean([float(price(one, scale)) for one in passed]))
    shut = [float(((p == 0) & (r != 0)).float().mean()) for p, r in zip(passed, raw, strict=True)]
    return kept, cost, float(np.mean(shut))
