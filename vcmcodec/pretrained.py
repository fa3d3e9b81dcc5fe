"""Which weights there are, where they lie, and whether they are the bytes they should be.

`weights/manifest.json` lists the models that come with the package; the directory named by the
environment variable `VCMCODEC_WEIGHTS` may hold a manifest of further ones, which are looked at
first.  Nothing is ever downloaded.  This module reads files and hashes; it must not know torch or
what is inside a weight file.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vcmcodec.errors import WeightsError

MANIFEST = "manifest.json"
VARIABLE = "VCMCODEC_WEIGHTS"
_PACKAGE = Path(__file__).resolve().parent
# Installed, weights/ is a subpackage; in a checkout it lies beside the package.
_OWN_DIRECTORIES = (_PACKAGE / "weights", _PACKAGE.parent / "weights")


@dataclass(frozen=True)
class ModelFile:
    """One model, as its manifest describes it.

    Attributes:
        id: name for people and for `--model`, as `scene-1`.
        profile: name of the profile that it serves.
        path: the weight file, which may be missing; `load_bytes` says so.
        sha256: of the whole file, 64 hexadecimal digits.
        fingerprint: 16 hexadecimal digits; a `.vcm` file names the model it needs by these.
        bytes: size of the file.
        default: taken where nobody asks for a model by name.
        tasks: names of the tasks that it serves.
        licence: terms of the weights, an SPDX identifier where there is one.
        card: the model card's file name beside the weights, or empty.
        splits: split points whose features it codes; empty for models of pictures.
        network: fingerprint of the network whose features these are, or empty.
    """

    id: str
    profile: str
    path: Path
    sha256: str
    fingerprint: str
    bytes: int
    default: bool
    tasks: tuple[str, ...]
    licence: str
    card: str
    splits: tuple[str, ...] = ()
    network: str = ""

    @property
    def present(self) -> bool:
        """Whether the file is there at its full size (its hash is checked when it is loaded)."""
        try:
            return self.path.stat().st_size == self.bytes
        except OSError:
            return False


def directories() -> tuple[Path, ...]:
    """Folders that are searched for a manifest, the user's own one first."""
    added = os.environ.get(VARIABLE)
    own = next((path for path in _OWN_DIRECTORIES if (path / MANIFEST).is_file()), None)
    return (*((Path(added),) if added else ()), *((own,) if own else ()))


def models() -> tuple[ModelFile, ...]:
    """Every model of every manifest; of two with the same id the first found counts.

    Raises:
        WeightsError: a manifest is damaged, or the folder that `VCMCODEC_WEIGHTS` names has none.
    """
    found: dict[str, ModelFile] = {}
    for model in _listed():
        found.setdefault(model.id, model)
    return tuple(found.values())


def _listed() -> list[ModelFile]:
    """Every model, also those that one of another folder takes the name of."""
    paths = [folder / MANIFEST for folder in directories()]
    return [model for path in paths for model in _read_manifest(path, stamp(path))]


def find(
    profile: str | None = None, model_id: str | None = None, fingerprint: str | bytes | None = None
) -> ModelFile:
    """Find one model; whatever is given must agree.

    A fingerprint finds its model under whatever name, so files keep the model that wrote them where
    another one has taken its name.

    Args:
        profile: name of a profile; alone, its default model is meant.
        model_id: name of a model.
        fingerprint: as in a file's header, 8 bytes or 16 hexadecimal digits.

    Raises:
        WeightsError: no such model, naming what was asked for and how to get it.
    """
    if isinstance(fingerprint, bytes):
        fingerprint = fingerprint.hex()
    everything = models() if fingerprint is None else tuple(_listed())
    fitting = [
        model
        for model in everything
        if profile in (None, model.profile)
        and model_id in (None, model.id)
        and fingerprint in (None, model.fingerprint)
    ]
    if fitting:
        return next((model for model in fitting if model.default), fitting[0])
    other = next((model.profile for model in everything if model.id == model_id), None)
    if fingerprint is None and profile is not None and other is not None:
        raise WeightsError(f"{model_id} is a model of profile {other}, not of {profile}")
    asked = " ".join(
        f"{name} {value}"
        for name, value in (("profile", profile), ("model", model_id), ("fingerprint", fingerprint))
        if value is not None
    )
    known = ", ".join(f"{model.id} ({model.fingerprint})" for model in everything) or "none"
    older = (
        "" if fingerprint is None else ", or install the version of vcmcodec that wrote the file"
    )
    raise WeightsError(
        f"no model for {asked or 'any profile'} is installed (installed: {known}); put its weight"
        f" file and manifest.json into a folder and name that folder in {VARIABLE}{older}"
    )


def load_bytes(model: ModelFile) -> bytes:
    """Read a weight file whose hash is right.

    Raises:
        WeightsError: the file is missing, cut short or altered.
    """
    try:
        data = model.path.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"the weights of model {model.id} are not there: {model.path}:"
            f" {error.strerror or error}; install vcmcodec again, or fetch them with the checkout"
        ) from error
    if hashlib.sha256(data).hexdigest() != model.sha256:
        raise WeightsError(
            f"the weights of model {model.id} are damaged: {model.path} has {len(data):,} bytes"
            f" (should be {model.bytes:,}) or another content than its manifest says"
        )
    return data


def checked_path(model: ModelFile) -> Path:
    """The path of a weight file whose hash was found right, once in this process.

    Raises:
        WeightsError: the file is missing, cut short or altered.
    """
    _check_once(model, stamp(model.path))
    return model.path


def stamp(path: Path) -> tuple[int, int]:
    """Time and size of a file, which tell caches of its content that it was replaced.

    Zeros where it cannot be looked at: whoever reads it then says why.
    """
    try:
        state = path.stat()
    except OSError:
        return 0, 0
    return state.st_mtime_ns, state.st_size


@functools.lru_cache(maxsize=64)
def _check_once(model: ModelFile, stamp: tuple[int, int]) -> None:
    load_bytes(model)


@functools.lru_cache(maxsize=16)
def _read_manifest(path: Path, stamp: tuple[int, int]) -> tuple[ModelFile, ...]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise WeightsError(f"no list of models at {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise WeightsError(f"{path} is not JSON: {error}") from error
    try:
        return tuple(_model_of(entry, path.parent) for entry in content["models"])
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} is no manifest of models ({error!r})") from error


def _model_of(entry: dict[str, Any], directory: Path) -> ModelFile:
    name = str(entry["file"])
    if Path(name).name != name:
        raise ValueError(f"{name!r} is no plain file name")
    return ModelFile(
        id=str(entry["id"]),
        profile=str(entry["profile"]),
        path=directory / name,
        sha256=str(entry["sha256"]).lower(),
        fingerprint=str(entry["fingerprint"]).lower(),
        bytes=int(entry["bytes"]),
        default=bool(entry.get("default", False)),
        tasks=tuple(str(task) for task in entry.get("tasks", ())),
        licence=str(entry.get("licence", "")),
        card=str(entry.get("card", "")),
        splits=tuple(str(split) for split in entry.get("splits", ())),
        network=str(entry.get("network", "")).lower(),
    )
