"""Models are found by manifest, and their bytes are those that the manifest promises."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from vcmcodec import pretrained
from vcmcodec.errors import WeightsError


def entry(name: str, content: bytes, **changes: object) -> dict[str, object]:
    return {
        "id": name,
        "profile": "scene",
        "file": f"{name}.safetensors",
        "sha256": hashlib.sha256(content).hexdigest(),
        "fingerprint": hashlib.sha256(content).hexdigest()[:16],
        "bytes": len(content),
        "default": False,
        "tasks": ["human"],
        "licence": "MIT",
        "card": f"{name}.md",
        **changes,
    }


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two models beside the package's own."""
    for name in ("first", "second"):
        (tmp_path / f"{name}.safetensors").write_bytes(name.encode())
    models = [entry("first", b"first"), entry("second", b"second", profile="other", default=True)]
    (tmp_path / "manifest.json").write_text(json.dumps({"models": models}))
    monkeypatch.setenv(pretrained.VARIABLE, str(tmp_path))
    monkeypatch.setattr(pretrained, "_OWN_DIRECTORIES", ())
    return tmp_path


def test_models_are_found_by_name_profile_and_fingerprint(added: Path) -> None:
    first, second = pretrained.models()
    assert pretrained.find(model_id="first") == first
    assert pretrained.find(profile="other") == second
    assert pretrained.find(fingerprint=first.fingerprint) == first
    assert pretrained.find(fingerprint=bytes.fromhex(second.fingerprint)) == second
    assert pretrained.find() == second  # the default one
    assert first.path == added / "first.safetensors"
    assert first.present


@pytest.mark.parametrize(
    "asked",
    [{"model_id": "third"}, {"profile": "first"}, {"fingerprint": b"12345678"},
     {"profile": "other", "model_id": "nothing"}],
)  # fmt: skip
def test_a_model_that_is_not_there_is_named_with_the_way_to_get_it(
    asked: dict[str, str], added: Path
) -> None:
    with pytest.raises(WeightsError, match=pretrained.VARIABLE) as caught:
        pretrained.find(**asked)
    for value in asked.values():
        assert (value.hex() if isinstance(value, bytes) else value) in str(caught.value)
    assert "second" in str(caught.value)


def test_a_model_of_another_profile_is_called_that(added: Path) -> None:
    own = pretrained.find(model_id="first").profile
    with pytest.raises(WeightsError, match=f"first is a model of profile {own}, not of other"):
        pretrained.find(profile="other", model_id="first")


def test_a_weight_file_is_checked_and_checked_again_once_it_changes(added: Path) -> None:
    first = pretrained.find(model_id="first")
    assert pretrained.checked_path(first) == first.path
    first.path.write_bytes(b"fIrst, and more")
    with pytest.raises(WeightsError, match="damaged"):
        pretrained.checked_path(first)
    assert not first.present
    first.path.unlink()
    with pytest.raises(WeightsError, match="not there"):
        pretrained.checked_path(first)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"models": [{}]}', '{"models": 3}',
     json.dumps({"models": [entry("a", b"", file="../a")]}),
     json.dumps({"models": [entry("a", b"", bytes="many")]})],
)  # fmt: skip
def test_a_damaged_manifest_is_an_error_that_names_it(content: str, added: Path) -> None:
    (added / "manifest.json").write_text(content)
    with pytest.raises(WeightsError, match=r"manifest\.json"):
        pretrained.models()


def test_a_folder_without_a_manifest_is_an_error(added: Path) -> None:
    (added / "manifest.json").unlink()
    with pytest.raises(WeightsError, match=r"manifest\.json"):
        pretrained.find()


def test_the_models_of_this_checkout_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(pretrained.VARIABLE, raising=False)
    models = pretrained.models()
    assert len({model.id for model in models}) == len({model.fingerprint for model in models})
    for profile in {model.profile for model in models}:
        assert sum(model.default for model in models if model.profile == profile) == 1
    for model in models:
        assert pretrained.checked_path(model).is_file()
        assert (model.path.parent / model.card).is_file()
        assert model.licence


def test_a_file_keeps_its_model_where_another_takes_the_name(
    added: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models of one's own, exported under the usual name, hid those that wrote one's files."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "manifest.json").write_text(json.dumps({"models": [entry("first", b"shipped")]}))
    monkeypatch.setattr(pretrained, "_OWN_DIRECTORIES", (own,))
    shipped = hashlib.sha256(b"shipped").hexdigest()[:16]
    assert pretrained.find(model_id="first").path == added / "first.safetensors"
    assert pretrained.find(fingerprint=shipped).path == own / "first.safetensors"
    assert [model.id for model in pretrained.models()] == ["first", "second"]
