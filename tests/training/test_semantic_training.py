"""The three stages of `semantic`: what each learns, what it may read, and what comes of it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import semantic_model
import task_models
from photographs import NAMES, astronaut, photograph
from vcmcodec import models
from vcmcodec.errors import RequestError
from vcmcodec.feature_codec import EncodeOptions, decode_features, encode_picture
from vcmcodec.machine import analyze
from vcmcodec.nn.interactions import PLAIN
from vcmcodec.nn.semantic_codec import SemanticCodec
from vcmcodec.profiles import semantic as profile
from vcmcodec.training import (
    export,
    semantic_adaptor,
    semantic_export,
    semantic_features,
    semantic_probe,
    semantic_run,
)
from vcmcodec.training.coder import Learned
from vcmcodec.training.near_first import NearFirstRecipe
from vcmcodec.training.photographs import Views
from vcmcodec.training.semantic import (
    CodecRecipe,
    Draw,
    FeaturesRecipe,
    code,
    start_at_pca,
)
from vcmcodec.vision.generic import Adaptor
from vcmcodec.vision.labels import VOC
from weights_folder import weights_from

FEATURES = FeaturesRecipe(
    crop=64, batch=4, steps=10, warm_up=2, queue=16, points=3, refresh=4, filter_from=0.3
)
CODEC = CodecRecipe(crop=64, batch=2, steps=12, warm_up=3)
ADAPTOR = NearFirstRecipe(side=64, batch=2, steps=8, warm_up=2, near=0.5)
opened: list[str] | None = None


def _listen(event: str, details: tuple[object, ...]) -> None:
    if opened is not None and event == "open":
        opened.append(str(details[0]))


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profile, "LATENT", semantic_model.LATENT)
        patch.setattr(semantic_run, "PCA_CROPS", 24)
        patch.setattr(semantic_run, "LONGER_SIDE", 128)
        patch.setattr(semantic_features, "CALIBRATION", 2)
        patch.setattr(semantic_adaptor, "EYE_BATCHES", 2)
        yield


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tar of photographs and their class masks, with labels beside it."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(3)
    images, annotations = [], []
    with tarfile.open(folder / "photos.tar", "w") as shard:
        for number in range(10):
            name = f"p{number}"
            top, left = (int(v) for v in rng.integers(0, 60, 2))
            picture = Image.fromarray(photograph(NAMES[number % 4], 112, 144, top, left))
            picture.save(folder / f"{name}.webp")
            Image.fromarray(rng.integers(0, 21, (112, 144)).astype(np.uint8)).save(
                folder / f"{name}.png"
            )
            for suffix in ("webp", "png"):
                shard.add(folder / f"{name}.{suffix}", f"{name}.{suffix}")
                (folder / f"{name}.{suffix}").unlink()
            about = {"file_name": f"{name}.webp", "mask": f"{name}.png", "tar": "photos.tar"}
            images.append({"id": number, "width": 144, "height": 112, **about})
            what = {"category_id": 1 + number % 3, "bbox": [20, 20, 60, 50], "iscrowd": 0}
            annotations.append({"id": number, "image_id": number, **what})
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(VOC)]
    labels = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "labels.json").write_text(json.dumps(labels))
    return folder


def no_news(line: dict[str, float]) -> None:
    assert all(np.isfinite(value) for value in line.values())


def hand_over(run: Path, folder: Path, *names: str) -> None:
    """Copy what stages of a run have left."""
    for name in names:
        shutil.copy(run / f"{name}.safetensors", folder)


def learn_features(pictures: Path, folder: Path, **changes: object) -> None:
    until = changes.pop("until", None)
    recipe = dataclasses.replace(FEATURES, **changes)  # type: ignore[arg-type]
    semantic_features.train(
        [pictures / "photos.tar"], folder, recipe, no_news,
        config=semantic_model.CONFIG, until=until,  # type: ignore[arg-type]
    )  # fmt: skip


def learn_codec(pictures: Path, folder: Path, until: int | None = None) -> Learned[SemanticCodec]:
    data = [pictures / "photos.tar"]
    return semantic_run.train(data, folder, CODEC, no_news, until=until)


@pytest.fixture(scope="module")
def stages(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Features and codec of a small run, and every file and member that they opened."""
    global opened
    folder = tmp_path_factory.mktemp("run")
    taken: list[str] = []
    extract = tarfile.TarFile.extractfile
    sys.addaudithook(_listen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            tarfile.TarFile,
            "extractfile",
            lambda self, member: (
                taken.append(getattr(member, "name", member)) or extract(self, member)
            ),
        )
        opened = taken
        try:
            learn_features(pictures, folder)
            learn_codec(pictures, folder)
        finally:
            opened = None
    return folder, taken


def test_features_and_codec_open_pictures_alone(
    stages: tuple[Path, list[str]], pictures: Path
) -> None:
    """Checklist A1: pictures alone, though masks and labels lie beside them."""
    _, taken = stages
    read = {Path(name).name for name in taken if Path(name).parent in (pictures, Path("."))}
    assert read == {"photos.tar", *(f"p{number}.webp" for number in range(10))}


def test_features_resume_to_the_step(
    stages: tuple[Path, list[str]], pictures: Path, tmp_path: Path
) -> None:
    """Queue, hot boxes, key encoder and random numbers included."""
    learn_features(pictures, tmp_path, until=5)
    learn_features(pictures, tmp_path)
    whole = semantic_run.read_network(stages[0] / "features.safetensors").state_dict()
    parts = semantic_run.read_network(tmp_path / "features.safetensors").state_dict()
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_the_codec_resumes_to_the_step(
    stages: tuple[Path, list[str]], pictures: Path, tmp_path: Path
) -> None:
    hand_over(stages[0], tmp_path, "features")
    learn_codec(pictures, tmp_path, until=5)
    parts = learn_codec(pictures, tmp_path).state_dict()
    whole = semantic_run.read_codec(stages[0])[0].state_dict()
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_a_stage_needs_the_one_before(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="run --stage features first"):
        learn_codec(pictures, tmp_path)
    learn_features(pictures, tmp_path, until=0)
    with pytest.raises(RequestError, match="run --stage codec first"):
        semantic_adaptor.train([pictures / "photos.tar"], tmp_path, ADAPTOR, no_news)


def test_a_codec_of_other_features_is_refused(
    stages: tuple[Path, list[str]], pictures: Path, tmp_path: Path
) -> None:
    hand_over(stages[0], tmp_path, "codec")
    learn_features(pictures, tmp_path, until=1)
    with pytest.raises(RequestError, match="run --stage codec again"):
        semantic_run.read_codec(tmp_path)


def test_the_start_is_a_transform_codec() -> None:
    """Principal components carry most of the feature through without a step of training."""
    network = semantic_model.network()
    torch.manual_seed(2)
    pictures = [torch.rand(2, 3, 128, 160) for _ in range(3)]
    samples = [semantic_run.features_of(network, one) for one in pictures]
    codec = semantic_run.build(network, "0" * 16, CODEC)
    start_at_pca(codec, samples)
    plan = Draw(10000, np.zeros((8, 10), np.int64))
    learned = Learned(codec)
    with torch.no_grad():
        back, bits = code(codec, learned.prior, samples[0], plan, noisy=False)
    wrong = (back - samples[0]).square().mean() / samples[0].var((0, 2, 3)).mean()
    assert float(wrong) < 0.6
    assert float(bits) > 0


def test_ablations_build_what_they_say(stages: tuple[Path, list[str]]) -> None:
    network = semantic_run.read_network(stages[0] / "features.safetensors")
    usual = semantic_run.build(network, "", CODEC)
    plain = semantic_run.build(network, "", dataclasses.replace(CODEC, kind=PLAIN))
    once = semantic_run.build(network, "", dataclasses.replace(CODEC, checkerboard=False))
    assert plain.macs() == pytest.approx(usual.macs(), rel=0.01)
    assert set(usual.latent.phases) == {2}
    assert set(once.latent.phases) == {1}
    assert once.macs() == usual.macs()


def learn_adaptor(pictures: Path, folder: Path, until: int | None = None) -> Adaptor:
    data = [pictures / "photos.tar"]
    return semantic_adaptor.train(data, folder, ADAPTOR, no_news, objects=data, until=until)


@pytest.fixture(scope="module")
def adapted(
    stages: tuple[Path, list[str]], pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """The third stage of the same run, exported to a folder beside its vision network."""
    weights = tmp_path_factory.mktemp("weights")
    task_models.install_network(weights)
    with weights_from(weights):
        learn_adaptor(pictures, stages[0])
    data = [pictures / "photos.tar"]
    blob, mark, encoder = semantic_export.export_model(
        stages[0], data, crops=10, crop=96, show=lambda line: None
    )
    export.enter(weights, "tiny", "semantic", blob, mark, network=encoder, licence="none")
    return weights, mark


def test_the_adaptor_learns_and_nothing_else_does(
    stages: tuple[Path, list[str]], pictures: Path, adapted: tuple[Path, str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    hand_over(stages[0], tmp_path, "features", "codec")
    left = semantic_run.read_codec(tmp_path)
    monkeypatch.setattr(semantic_run, "read_codec", lambda folder: left)
    with weights_from(adapted[0]):
        network, _ = semantic_adaptor.reference(None, "cpu")
    frozen = *left, network
    before = [{k: v.clone() for k, v in part.state_dict().items()} for part in frozen]
    front = semantic_adaptor.front_of_run(tmp_path, torch.device("cpu"))
    recipe = dataclasses.replace(ADAPTOR, steps=40)
    views = Views([pictures / "photos.tar"], (), recipe.side)
    trainer = semantic_adaptor.AdaptorTrainer(front, views, recipe, network, seed=1)
    lines = [trainer.train_step() for _ in range(40)]
    assert np.mean([line["c3"] for line in lines[-5:]]) < 0.9 * lines[0]["c3"]
    assert "distance" not in lines[0]
    assert "distance" in lines[-1]
    for part, state in zip(frozen, before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in part.state_dict().items())


def test_the_adaptor_resumes_to_the_step(
    stages: tuple[Path, list[str]], pictures: Path, adapted: tuple[Path, str], tmp_path: Path
) -> None:
    hand_over(stages[0], tmp_path, "features", "codec")
    with weights_from(adapted[0]):
        learn_adaptor(pictures, tmp_path, until=3)
        parts = learn_adaptor(pictures, tmp_path).state_dict()
    whole = semantic_export.read_adaptor(stages[0])[0].state_dict()
    folded = semantic_export.read_adaptor(tmp_path)[0].state_dict()
    assert all(torch.equal(value, folded[name]) for name, value in whole.items())
    assert parts


def test_what_is_exported_codes_and_answers(
    adapted: tuple[Path, str], stages: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, mark = adapted
    monkeypatch.setenv("VCMCODEC_WEIGHTS", str(weights))
    models._load.cache_clear()
    picture = astronaut(96, 128)
    made = encode_picture(picture, EncodeOptions(profile="semantic", quality=70))
    assert made.header.fingerprint.hex() == mark
    seen = analyze(made.data, score=0.0)
    assert seen.objects
    assert seen.label_map is not None
    learned, _ = semantic_run.read_codec(stages[0])
    model = models.load_model("semantic")
    found = profile.extract(model, picture, "c3", "cpu")  # type: ignore[arg-type]
    plan = Draw(7000, np.zeros((6, 8), np.int64))
    with torch.no_grad():
        _, bits = code(learned.codec, learned.prior, found.tensors["c3"], plan, noisy=False)
    # rounding weighs bits, so the file is smaller than what plain rounding would cost
    assert len(made.data) < float(bits) / 8 * 1.2 + 60
    models._load.cache_clear()


def test_probes_tell_runs_apart(
    stages: tuple[Path, list[str]], pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from vcmcodec.cli.main import vcm

    labels = str(pictures / "labels.json")
    call = ["train", "probe", str(stages[0]), "--labels", labels, "--evaluate", labels, "--json"]
    result = CliRunner().invoke(vcm, [*call, "-q"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout.splitlines()[0])
    names = [probe["name"] for probe in found["probes"]]
    assert names[:2] == ["random start", "self-supervised"]
    assert len(names) == 2 + len(semantic_probe.LEVELS)
    rates = [probe["bpp"] for probe in found["probes"][2:]]
    assert rates == sorted(rates)
    assert found["options"]["filtered"] is True
    assert 0 < found["kept"] <= 1.01
    for probe in found["probes"]:
        assert 0 < probe["presence"] <= 100


def test_a_probe_is_a_linear_one() -> None:
    """It finds what is linear in its inputs, on rows that it has not seen, and no more."""
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(400, 12))
    truth = np.stack([inputs[:, 0] + inputs[:, 3] > 0, inputs[:, 5] * inputs[:, 6] > 0], 1)
    halves = [(inputs[part], truth[part].astype(float)) for part in (slice(200), slice(200, 400))]
    easy = [(x, y[:, :1]) for x, y in halves]
    hard = [(x, y[:, 1:]) for x, y in halves]
    assert semantic_probe.score(easy[0], easy[1], ("sum",)) > 97
    assert semantic_probe.score(hard[0], hard[1], ("product",)) < 70


def test_patches_are_told_from_pictures_whatever_their_contrast() -> None:
    rgb = torch.from_numpy(photograph("astronaut", 64, 96)).permute(2, 0, 1)[None] / 255
    found = semantic_features.patches(rgb)
    assert found.shape == (1, semantic_features.PATCH_VALUES, 8, 12)
    pale = semantic_features.patches(0.5 + 0.3 * (rgb - 0.5))
    busy = found[:, 3:].square().mean(1) > 0.7  # flat patches stay small
    assert busy.any()
    away = (found - pale)[:, 3:].square().mean(1)
    assert float(away[busy].max()) < 0.1
    flat = semantic_features.patches(torch.full((1, 3, 16, 16), 0.25))
    assert torch.allclose(flat[:, :3], torch.full((1, 3, 2, 2), -0.8))
    assert float(flat[:, 3:].abs().max()) < 1e-4


def test_a_feature_that_must_tell_the_picture_does(pictures: Path, tmp_path: Path) -> None:
    lost = {}
    for weight in (0.0, 10.0):
        rows: list[dict[str, float]] = []
        recipe = dataclasses.replace(FEATURES, steps=50, retained=weight, price=0.0, rate=3e-3)
        semantic_features.train(
            [pictures / "photos.tar"], tmp_path / str(weight), recipe, rows.append,
            config=semantic_model.CONFIG, seed=3,
        )  # fmt: skip
        lost[weight] = rows[-1]["lost"]
    assert lost[10.0] < 0.9 * lost[0.0]


def test_an_adaptor_taught_behind_an_installed_model_keeps_its_files(
    adapted: tuple[Path, str], pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, mark = adapted
    monkeypatch.setenv("VCMCODEC_WEIGHTS", str(weights))
    models._load.cache_clear()
    start = models.load_model("semantic")
    assert isinstance(start, profile.SemanticModel)
    before = {name: value.clone() for name, value in start.adaptor.state_dict().items()}
    data = [pictures / "photos.tar"]
    taught = semantic_adaptor.train(data, tmp_path, ADAPTOR, no_news, start=start)
    assert all(torch.equal(before[n], value) for n, value in start.adaptor.state_dict().items())
    assert any(not torch.equal(before[n], value) for n, value in taught.state_dict().items())
    blob, same, _ = semantic_export.export_adaptor(start, tmp_path)
    assert same == mark
    (tmp_path / "new.safetensors").write_bytes(blob)
    new = models._load(tmp_path / "new.safetensors", "cpu", "semantic", (0, 0))
    assert new.fingerprint == start.fingerprint
    assert isinstance(new, profile.SemanticModel)
    written = {name: value.half() for name, value in taught.state_dict().items() if value.dim() > 1}
    assert all(torch.equal(v, new.adaptor.state_dict()[n].half()) for n, v in written.items())
    models._load.cache_clear()


def test_what_is_taught_behind_an_installed_model_is_what_files_decode_to(
    adapted: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VCMCODEC_WEIGHTS", str(adapted[0]))
    models._load.cache_clear()
    model = models.load_model("semantic")
    assert isinstance(model, profile.SemanticModel)
    picture = astronaut(96, 128)
    front = semantic_adaptor.front_of_model(model)
    rgb = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
    found = front.decoded(rgb, 7000)
    made = encode_picture(picture, EncodeOptions(profile="semantic", quality=70))
    decoded = decode_features(made.data).tensors["c3"]
    torch.testing.assert_close(found, decoded, atol=1e-3, rtol=1e-3)
    models._load.cache_clear()
