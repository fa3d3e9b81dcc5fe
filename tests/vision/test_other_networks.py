"""ONNX files and torchvision's networks behind the same interface."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from torchvision_networks import save_random, torchvision_models
from vcmcodec.errors import RequestError, WeightsError
from vcmcodec.vision.backend import open_backend
from vcmcodec.vision.onnx_backend import OnnxBackend, OnnxSpec, guess_spec, read_spec

RGB = np.random.default_rng(0).integers(0, 255, (60, 90, 3)).astype(np.uint8)


class Cells(nn.Module):
    """A detector that finds one box, around the brightest quarter of its input."""

    def forward(self, rgb: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        quarters = nn.functional.adaptive_avg_pool2d(rgb.mean(1, keepdim=True), 2).flatten(1)
        boxes = torch.tensor(
            [[[0.0, 0, 32, 32], [32, 0, 64, 32], [0, 32, 32, 64], [32, 32, 64, 64]]]
        )
        scores = torch.stack((quarters * 0, quarters), 2)
        return boxes + 0 * quarters.sum(), scores


class Mean(nn.Module):
    """A classifier that tells which colour is strongest."""

    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        return 50 * rgb.mean((2, 3))


def export(network: nn.Module, path: Path, outputs: list[str]) -> Path:
    """Write an ONNX file with a fixed 64x64 input."""
    pytest.importorskip("onnx", reason="onnx is needed to make a file to test with")
    pytest.importorskip("onnxruntime", reason="the optional extra vcmcodec[onnx]")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(), (torch.rand(1, 3, 64, 64),), str(path), input_names=["rgb"],
            output_names=outputs, opset_version=17, dynamo=False,
        )  # fmt: skip
    return path


def test_an_onnx_detector_finds_boxes_in_true_pixels(tmp_path: Path) -> None:
    path = export(Cells(), tmp_path / "cells.onnx", ["boxes", "scores"])
    backend = OnnxBackend(path, labels=("dark", "bright"), threads=1)
    assert backend.tasks == ("detection",)
    rgb = np.zeros((100, 200, 3), np.uint8)
    rgb[:, 100:] = 255  # scaled to 32 x 64, above padding of grey 0.45
    (thing,) = backend.predict(rgb, score=0.6).objects or ()
    assert thing.label == "bright"
    assert thing.box == (100.0, 0.0, 100.0, 100.0)
    features = backend.head(rgb, "input")
    again = backend.results(backend.rest(features, backend.tasks), features.geometry, 0.6)
    assert again.objects == (thing,)


def test_an_onnx_classifier_gives_shares_of_its_classes(tmp_path: Path) -> None:
    path = export(Mean(), tmp_path / "mean.onnx", ["logits"])
    backend = OnnxBackend(path, labels=("red", "green", "blue"), threads=1)
    green = np.zeros((64, 64, 3), np.uint8)
    green[..., 1] = 255
    found = backend.predict(green).classes
    assert found is not None
    assert found[0].label == "green"
    assert sum(c.score for c in found) == pytest.approx(1)
    assert OnnxBackend(path).labels == ("class 0", "class 1", "class 2")


def test_the_spec_says_what_names_do_not(tmp_path: Path) -> None:
    path = export(Cells(), tmp_path / "cells.onnx", ["a", "b"])
    with pytest.raises(RequestError, match="a, b"):
        OnnxBackend(path)
    spec = OnnxSpec(boxes="a", scores="b", layout="cxcywh")
    rgb = np.zeros((64, 64, 3), np.uint8)
    rgb[32:, 32:] = 255
    (thing,) = OnnxBackend(path, spec=spec, threads=1).predict(rgb, score=0.5).objects or ()
    assert thing.box == (0.0, 0.0, 64.0, 64.0)  # centre 32, 32 and size 64, 64
    told = open_backend(str(path), outputs={"boxes": "a", "scores": "b", "layout": "cxcywh"})
    assert told.predict(rgb, score=0.5).objects == (thing,)
    with pytest.raises(RequestError, match="no output c"):
        OnnxBackend(path, spec=OnnxSpec(boxes="c", scores="b"))


def test_outputs_are_guessed_by_name() -> None:
    assert guess_spec({"boxes": 2, "scores": 1, "labels": 1}).labels == "labels"
    assert guess_spec({"output": 2}).logits == "output"
    with pytest.raises(RequestError, match="not clear"):
        guess_spec({"one": 3, "two": 3})


@pytest.mark.parametrize(
    "given", [{"bboxes": "a"}, {"boxes": "a"}, {"logits": "a", "scale": "x"},
              {"boxes": "a", "scores": "b", "layout": "yxyx"}]
)  # fmt: skip
def test_specs_that_make_no_sense_are_refused(given: dict[str, str]) -> None:
    with pytest.raises(RequestError):
        read_spec(given)


def test_what_is_no_onnx_file_is_a_weights_error(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the optional extra vcmcodec[onnx]")
    path = tmp_path / "x.onnx"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(WeightsError, match=r"x\.onnx"):
        open_backend(str(path))


@pytest.mark.parametrize(
    "name",
    ["resnet18", "mobilenet_v2", "lraspp_mobilenet_v3_large", "ssdlite320_mobilenet_v3_large"],
)
def test_a_torchvision_network_is_the_same_whole_and_split(name: str, tmp_path: Path) -> None:
    backend = open_backend(f"torchvision:{name}={save_random(name, tmp_path)}")
    before = {k: v.clone() for k, v in backend.network.state_dict().items()}  # type: ignore[attr-defined]
    task = backend.tasks[0]
    whole = backend.predict(RGB, score=0.0).to_json("a", task)
    assert len(whole) == 5
    assert backend.splits
    for split in backend.splits:
        features = backend.head(RGB, split)
        parts = backend.results(backend.rest(features, backend.tasks), features.geometry, 0.0)
        assert parts.to_json("a", task) == whole
    after = backend.network.state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_torchvision_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    torchvision_models()
    path = tmp_path / "other.pth"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="does not fit"):
        open_backend(f"torchvision:resnet18={path}")
    with pytest.raises(RequestError, match="no network"):
        open_backend(f"torchvision:nonsense={path}")
    with pytest.raises(RequestError, match="weights"):
        open_backend("torchvision:resnet18")
