"""A base layer for machines alone is moved to where the network sees most for its bits."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from photographs import photograph, whole
from task_models import install
from vcmcodec import adaptation, edit, machine, models, pretrained, scene_codec
from vcmcodec.bitstream.container import Container
from vcmcodec.bitstream.describe import describe
from vcmcodec.codec import EncodeOptions, decode, encode, encode_picture
from vcmcodec.errors import RequestError
from vcmcodec.evaluation.macs import count_kmacs
from vcmcodec.evaluation.metrics import Pixels
from vcmcodec.models import load_model, load_tasks
from vcmcodec.nn.feature_transform import level_features
from vcmcodec.nn.gain import Level
from vcmcodec.nn.picture_codec import cell_grid
from vcmcodec.profiles import scene
from vcmcodec.profiles.coding import Rounder
from vcmcodec.profiles.seeking import SeekingCoder
from vcmcodec.reader import Reader
from vcmcodec.vision.geometry import InputGeometry, fill, prepare, to_multiple

SCENE = bytes.fromhex(pretrained.find(profile="scene").fingerprint)
HEIGHT, WIDTH = 200, 260


def picture() -> Pixels:
    return photograph("coffee", HEIGHT, WIDTH, 60, 150)


@pytest.fixture(name="small")
def _small(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = install(tmp_path_factory.mktemp("tasks"), longer_side=192, coded_side=160, effort=3)
    monkeypatch.setenv("VCMCODEC_WEIGHTS", str(folder))


def away(rgb: Pixels, data: bytes) -> float:
    """How differently the decoder's network sees a file and its picture."""
    with Reader(data) as reader, torch.no_grad():
        tasks, base = load_tasks(reader.header.fingerprint), reader.latent()
        sight, facts = tasks.sight, tasks.facts
        assert sight is not None
        assert not tasks.looks_at_preview(rgb.shape[:2], reader.header.coded_size)
        image, _ = prepare(rgb, tasks.vision.longer_side)
        levels = level_features(base.level, facts.config.levels)
        split = tasks.transform(
            base.latent[None].clone(), levels, torch.ones(1, *base.present.shape, 1)
        )
        seen = sight.going_on({facts.split: to_multiple(split, 4)})
        return float(sight.distance(seen, sight.clean(image))[0])


@pytest.mark.weights
@pytest.mark.skipif(
    models.find_tasks(SCENE) is None, reason="no tasks model fits the installed picture model"
)
def test_more_is_seen_for_the_same_bytes() -> None:
    rgb = whole("astronaut")
    plain, looked = (
        encode(rgb, tasks=["detection"], base_quality=20, effort=effort) for effort in (0, 6)
    )
    assert len(looked) < 1.1 * len(plain)
    assert away(rgb, looked) < 0.7 * away(rgb, plain)
    shown = np.asarray(decode(looked).convert("RGB")).astype(float)
    before = np.asarray(decode(plain).convert("RGB")).astype(float)
    mean = [float(((one - rgb) ** 2).mean()) for one in (before, shown)]
    assert mean[1] < 1.3 * mean[0]  # still the picture


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("side", [None, 0], ids=["preview", "latent"])
def test_what_is_coded_costs_no_more_than_what_was(side: int | None) -> None:
    rgb = picture() if side is None else picture()[:120, :160]
    model, tasks = load_model("scene"), load_tasks(SCENE)
    assert tasks.sight is not None
    reduced = np.asarray(Image.fromarray(rgb).resize((160, 123))) if side is None else rgb
    labels = np.zeros((-(-reduced.shape[0] // 16), 10), np.int64)
    source = scene.Source(reduced, labels, 1, 0)
    (piece,) = scene.analyse(model, source, 1)
    found = [
        adaptation.adapted(
            model, tasks, source, piece, rgb=rgb, rate_level=2000, effort=effort
        ).latent
        for effort in (1, 4)
    ]
    costs = [cost(model, tasks, source, rgb, latent) for latent in (piece.latent, *found)]
    assert costs[2] < costs[1] <= costs[0]
    assert costs[2] < 0.95 * costs[0]


def cost(model, tasks, source, rgb, latent) -> float:  # type: ignore[no-untyped-def]
    """Bits and sight of a latent, by the pieces that the search is made of."""
    codec, level = model.codec, Level(2000, 8)
    clean, view, num_pixels = adaptation._look(model, tasks, source, rgb, level)
    base = latent[:, :64].clone()
    steps = base * codec.gains.gain(level, slice(0, 64))
    rounder = Rounder(model.tables, scene.price(codec, level, 64))
    with torch.no_grad():
        coder = SeekingCoder(steps, torch.zeros(len(steps), 8), rounder)
        grid = cell_grid(source.labels, codec.latent.phases)
        context = codec.entropy.hyper_context(torch.zeros(len(steps), 8), grid)
        values = codec.entropy.code_slices(coder, grid, level, context, 0, steps[:, :0])
        shown = codec.dequantise(values, level).reshape(1, *source.labels.shape, -1)
        distance, _ = tasks.sight.distance(view(shown), clean)
    return float(coder.bits + tasks.facts.sight_price_at(20) * num_pixels * distance)


@pytest.mark.usefixtures("small")
def test_the_search_rounds_as_the_encoder_does() -> None:
    rgb = picture()[:128, :160]
    model = load_model("scene")
    source = scene.Source(rgb, np.zeros((8, 10), np.int64), 1, 0)
    (piece,) = scene.analyse(model, source, 1)
    codec, level = model.codec, Level(4000, 8)
    steps = piece.latent[:, :64].clone() * codec.gains.gain(level, slice(0, 64))
    rounder = Rounder(model.tables, scene.price(codec, level, 64))
    with torch.no_grad():
        coder = SeekingCoder(steps, codec.hyper_analysis(steps), rounder)
        grid = cell_grid(source.labels, codec.latent.phases)
        context = codec.entropy.hyper_context(coder.hyper(8), grid)
        values = codec.entropy.code_slices(coder, grid, level, context, 0, steps[:, :0])
    data = encode(rgb, tasks=["detection"], base_quality=40, effort=0)
    with Reader(data) as reader:
        decoded = reader.latent().latent
    assert torch.equal(codec.dequantise(values, level).reshape(decoded.shape), decoded)
    assert abs(float(coder.bits) / 8 - len(data)) < 0.15 * len(data) + 60  # and the header


@pytest.mark.usefixtures("small")
def test_the_same_picture_gives_the_same_bytes() -> None:
    one, other = (encode(picture(), tasks=["detection"]) for _ in range(2))
    assert one == other
    assert one != encode(picture(), tasks=["detection"], effort=0)


@pytest.mark.usefixtures("small")
def test_what_looking_costs_can_be_counted() -> None:
    """`autograd.grad` once ran into the counter's hooks, at the end of a long bench."""

    def count(effort: int) -> float:
        return count_kmacs(lambda: encode(picture(), tasks=["detection"], effort=effort), 1)[0]

    assert 2 * count(0) < count(1) < 0.7 * count(3)


@pytest.mark.usefixtures("small")
def test_only_what_machines_alone_will_see_is_adapted_unasked() -> None:
    for asked in ({"tasks": None}, {"tasks": ["detection", "human"]}):
        assert encode(picture(), **asked) == encode(picture(), effort=0, **asked)  # type: ignore[arg-type]
    # with a longer side of 0 a later enhancement may complete the base
    whole_size = encode(picture(), tasks=["detection"], longer_side=0)
    assert whole_size == encode(picture(), tasks=["detection"], longer_side=0, effort=0)
    assert whole_size != encode(picture(), tasks=["detection"], longer_side=0, effort=2)
    small = picture()[:100, :120]
    assert encode(small, tasks=["detection"]) != encode(small, tasks=["detection"], effort=0)


@pytest.mark.usefixtures("small")
def test_an_adapted_base_is_not_completed_by_the_layers_of_another() -> None:
    rgb = picture()[:100, :120]
    rest = edit.extract(encode(rgb, base_quality=20), layers=["mid", "full"])
    common = encode(rgb, tasks=["detection"], base_quality=20, longer_side=0)
    assert decode(edit.merge([common, rest])).size == (120, 100)
    adapted = encode(rgb, tasks=["detection"], base_quality=20)
    assert describe(Container.read(adapted)).apart
    assert not describe(Container.read(common)).apart
    for parts in ([adapted, rest], [rest, adapted]):
        with pytest.raises(RequestError, match="for machines alone goes with no other layers"):
            edit.merge(parts)


def two_groups() -> Pixels:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[60:150, 80:200] = 9
    return mask


def made(**asked: object) -> tuple[bytes, tuple[str, ...]]:
    encoded = encode_picture(
        picture(),
        EncodeOptions(tasks=["detection"], **{k: v for k, v in asked.items() if k != "groups"}),  # type: ignore[arg-type]
        groups=asked.get("groups"),  # type: ignore[arg-type]
    )
    return encoded.data, encoded.warnings


@pytest.mark.usefixtures("small")
def test_groups_are_not_adapted_unasked() -> None:
    """They were, together: what was coded of one depended on what the others show."""
    mask = two_groups()
    assert made(groups=mask) == made(groups=mask, effort=0)
    assert (
        encode_picture(picture(), EncodeOptions(tasks=["detection"]), groups=mask)
        .header.layers[0]
        .rate_level
        == 3000
    )  # what a file that is not adapted needs
    one = np.full((HEIGHT, WIDTH), 7, np.uint8)
    assert made(groups=one)[0] != made(groups=one, effort=0)[0]
    assert made(groups=one) == made(groups=one, effort=3)
    assert made(groups=one)[1] == ()


@pytest.mark.usefixtures("small")
def test_groups_are_adapted_together_where_that_is_asked_for_and_it_is_said() -> None:
    mask = two_groups()
    whole, notes = made(groups=mask, effort=2)
    assert notes == (scene_codec.ADAPTED_TOGETHER,)
    assert whole != made(groups=mask, effort=0, base_quality=12)[0]
    with Reader(whole) as one, Reader(edit.extract(whole, groups=[9])) as other:
        every, some = one.latent(), other.latent()
    assert torch.equal(every.latent[some.present], some.latent[some.present])


@pytest.mark.usefixtures("small")
def test_a_group_that_vanishes_is_not_looked_at_either() -> None:
    cells = np.zeros((13, 17), np.uint8)
    cells[2, 2] = 3
    data, notes = made(groups=cells, longer_side=44)
    assert (data, notes) == made(groups=cells, longer_side=44, effort=0)
    assert scene_codec.ADAPTED_TOGETHER in made(groups=cells, longer_side=44, effort=1)[1]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("effort", [None, 2])
def test_a_wanted_size_with_groups_says_so_only_where_it_is_adapted(effort: int | None) -> None:
    data, notes = made(groups=two_groups(), target_size=1500, effort=effort)
    plain = made(groups=two_groups(), target_size=1500, effort=0)
    assert len(data) <= 1500
    assert notes == (() if data == plain[0] else (scene_codec.ADAPTED_TOGETHER,))
    assert (data == plain[0]) == (effort is None)


@pytest.mark.usefixtures("small")
def test_a_wanted_size_is_kept() -> None:
    plain = encode(picture(), tasks=["detection"], target_size=900, effort=0)
    adapted = encode(picture(), tasks=["detection"], target_size=900)
    assert plain != adapted
    assert 600 < len(adapted) <= 900
    least = len(encode(picture(), tasks=["detection"], base_quality=0, effort=0))
    with warnings.catch_warnings(record=True) as told:
        kept = encode(picture(), tasks=["detection"], target_size=least)
    assert len(kept) <= least
    if told:
        assert str(told[0].message).startswith("not adapted")
        assert kept == encode(picture(), tasks=["detection"], target_size=least, effort=0)


@pytest.mark.usefixtures("small")
def test_an_adapted_base_has_a_default_quality_of_its_own() -> None:
    def quality(**asked: object) -> float:
        encoded = encode_picture(picture(), EncodeOptions(tasks=["detection"], **asked))  # type: ignore[arg-type]
        return encoded.header.layers[0].rate_level / 100

    assert quality() == 12
    assert quality(effort=0) == 30
    assert machine.shortfalls(Reader(encode(picture(), tasks=["detection"]))) == ()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"effort": -1, "tasks": ["detection"]}, "below 0"),
        ({"effort": 2}, "for people"),
    ],
)
def test_an_effort_that_cannot_be_made_is_refused(options: dict, text: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(RequestError, match=text):
        encode(picture(), **options)


@pytest.mark.usefixtures("small")
def test_tiles_are_not_adapted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene, "TILED_FROM_CELLS", 4)
    with pytest.raises(RequestError, match="too large to be adapted"):
        encode(picture(), tasks=["detection"], effort=2)
    encode(picture(), tasks=["detection"])


def test_a_tasks_model_may_know_nothing_of_sight(
    tmp_path: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VCMCODEC_WEIGHTS", str(install(tmp_path, longer_side=192)))  # type: ignore[arg-type]
    assert encode(picture(), tasks=["detection"]) == encode(
        picture(), tasks=["detection"], effort=0
    )
    with pytest.raises(RequestError, match="cannot adapt"):
        encode(picture(), tasks=["detection"], effort=2)


def test_pixels_with_a_gradient_become_the_same_input() -> None:
    rgb = picture()
    geometry = InputGeometry.fit(HEIGHT, WIDTH, 150)
    pixels = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float() / 255
    from vcmcodec.vision.geometry import fill_tensor

    away = (fill_tensor(pixels, geometry) - fill(rgb, geometry)).abs()
    assert away.max() < 2 / 255
