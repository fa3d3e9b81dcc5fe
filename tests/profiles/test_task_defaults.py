"""How good a base layer is where nobody says: what the tasks need together, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from photographs import astronaut
from task_models import QUALITIES, install
from vcmcodec import edit, models, pretrained
from vcmcodec.bitstream.container import Container
from vcmcodec.codec import encode
from vcmcodec.errors import WeightsError
from vcmcodec.profiles.scene import DEFAULT_BASE_QUALITY

SCENE = bytes.fromhex(pretrained.find(profile="scene").fingerprint)


@pytest.fixture
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VCMCODEC_WEIGHTS", str(install(tmp_path)))


def base_of(file: bytes) -> float:
    """Quality of a file's base layer."""
    return Container.read(file).header.layers[0].rate_level / 100


@pytest.mark.usefixtures("_installed")
def test_the_base_is_the_cheapest_that_serves_what_is_asked_for() -> None:
    rgb = astronaut()
    for tasks, wanted in (
        (["classification"], 10.0),
        (["segmentation"], 25.0),
        (["segmentation", "classification"], 25.0),
        (["classification", "detection"], 30.0),
        (["human", "classification"], 10.0),
        (None, 30.0),
        (["human"], 60.0),
    ):
        assert base_of(encode(rgb, tasks=tasks, quality=60)) == wanted, tasks
    assert base_of(encode(rgb, tasks=["detection"], quality=20)) == 20
    assert base_of(encode(rgb, tasks=["classification"], base_quality=44)) == 44


@pytest.mark.usefixtures("_installed")
def test_classification_alone_takes_fewer_bytes() -> None:
    sizes = {task: len(encode(astronaut(), tasks=[task])) for task in QUALITIES}
    assert sizes["classification"] < 0.7 * sizes["detection"]
    assert sizes["segmentation"] < sizes["detection"]


@pytest.mark.usefixtures("_installed")
def test_what_is_extracted_is_what_is_encoded_at_the_same_base_quality() -> None:
    whole = encode(astronaut(), quality=60)
    part = edit.extract(whole, tasks=["classification"])
    assert part == encode(astronaut(), tasks=["classification"], base_quality=30)


def test_without_a_tasks_model_there_is_a_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "find_tasks", lambda scene: None)
    assert base_of(encode(astronaut(), tasks=["classification"])) == DEFAULT_BASE_QUALITY


def test_a_tasks_model_of_another_picture_model_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VCMCODEC_WEIGHTS", str(install(tmp_path, scene="0" * 16)))
    other = models.find_tasks(bytes(8))
    assert other is not None
    assert other[0].id == "tasks-small"
    found = models.find_tasks(SCENE)
    assert found is None or found[0].id != "tasks-small"
    assert models.default_base_quality(b"12345678", ("detection",)) is None


def test_a_damaged_tasks_model_is_no_silent_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VCMCODEC_WEIGHTS", str(install(tmp_path)))
    path = tmp_path / "tasks-small.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="damaged"):
        encode(astronaut(), tasks=["classification"])
    assert encode(astronaut(), tasks=["human"])
