"""How good a base layer is where nobody says: what the tasks need together, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from photographs import astronaut
from task_models import QUALITIES, install
from vcmcodec import edit, models, pretrained
from vcmcodec.bitstream.container import Container
from vcmcodec.codec import encode
from vcmcodec.errors import RequestError, WeightsError
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
        assert base_of(encode(rgb, tasks=tasks)) == wanted, tasks
    for tasks, quality, wanted in (
        (["human", "classification"], 5, 5.0),
        (["human", "classification"], 80, 10.0),
        (None, 80, 30.0),
        (["human"], 80, 80.0),
    ):
        assert base_of(encode(rgb, tasks=tasks, quality=quality)) == wanted, tasks


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("longer_side", [None, 0, 80])
def test_the_quality_of_a_file_for_machines_alone_is_that_of_its_base(
    longer_side: int | None,
) -> None:
    """It lowered the base where it was below the default, and did nothing above."""
    rgb = astronaut()
    asked = {"tasks": ["detection"], "longer_side": longer_side}
    for quality in (0, 20, 60, 80, 100):
        file = encode(rgb, quality=quality, **asked)  # type: ignore[arg-type]
        assert base_of(file) == quality
        assert file == encode(rgb, base_quality=quality, **asked)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="quality or base quality, not both"):
        encode(rgb, quality=50, base_quality=50, **asked)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=r"quality 100.5 is outside"):
        encode(rgb, quality=100.5, **asked)  # type: ignore[arg-type]


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
