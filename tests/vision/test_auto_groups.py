"""`groups="auto"`: the vision network's objects become groups of a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from photographs import photograph
from vcmcodec import codec, pretrained
from vcmcodec.errors import WeightsError
from vcmcodec.training.export import enter
from vcmcodec.vision import weights
from vcmcodec.vision.config import VisionConfig
from vcmcodec.vision.labels import VOC
from vcmcodec.vision.network import VisionNetwork


def sure_network() -> VisionNetwork:
    """One that sees a cat in every cell at stride 32, as large as three cells."""
    torch.manual_seed(0)
    network = VisionNetwork(VisionConfig(stem=8, c2=8, c3=8, c4=8, c5=8, pyramid=(8, 8, 8), head=8))
    for level, (scores, boxes) in enumerate(
        zip(network.detection.class_outs, network.detection.box_outs, strict=True)
    ):
        for out, bias in ((scores, -9.0), (boxes, 1.3)):
            torch.nn.init.zeros_(out.weight)  # type: ignore[arg-type]
            torch.nn.init.constant_(out.bias, bias)  # type: ignore[arg-type]
        if level == 2:
            with torch.no_grad():
                scores.bias[VOC.index("cat")] = 2.0  # type: ignore[index,union-attr,operator]
    return network.eval()


@pytest.mark.weights
def test_objects_that_the_network_finds_become_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not any(m.profile == "scene" and m.present for m in pretrained.models()):
        pytest.skip("no scene model in weights/")
    blob = weights.pack(sure_network(), labels=VOC, longer_side=96)
    enter(tmp_path, "vision-sure", "vision", blob, "00" * 8, tasks=["detection"])
    monkeypatch.setenv(pretrained.VARIABLE, str(tmp_path))
    data = codec.encode(photograph("astronaut", 96, 96), tasks=["detection"], groups="auto")
    with codec.open(data) as reader:
        groups = reader.header.groups
        assert groups[0].label == "background" or groups[0].label == "cat"
        cats = [group for group in groups if group.label == "cat"]
        assert len(cats) >= 2
        assert all(group.score == pytest.approx(0.88, abs=0.01) for group in cats)


def test_without_a_network_the_error_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / pretrained.MANIFEST).write_text(json.dumps({"models": []}))
    monkeypatch.setenv(pretrained.VARIABLE, str(tmp_path))
    monkeypatch.setattr(pretrained, "_OWN_DIRECTORIES", ())
    with pytest.raises(WeightsError, match="vision"):
        codec.encode(photograph("astronaut", 48, 48), groups="auto")
