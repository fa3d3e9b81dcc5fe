"""`vcm bench` with the installed model on pictures small enough for a test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from vcmcodec.cli.bench import command
from vcmcodec.errors import RequestError
from vcmcodec.evaluation import oddities, scale, speed, structure
from vcmcodec.evaluation.corpora import NamedPicture, photo
from vcmcodec.evaluation.subject import Subject

pytestmark = pytest.mark.weights
WIDTH, HEIGHT = 208, 176
PIXELS = WIDTH * HEIGHT


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("bench")
    Image.fromarray(photo(768, 512).rgb[150 : 150 + HEIGHT, 250 : 250 + WIDTH]).save(
        where / "cup.png"
    )
    cells = np.zeros((11, 13), np.uint8)
    cells[3:8, 4:9] = 1
    cells[9:, :5] = 2
    cells[0, 10:] = 3
    (where / "maps").mkdir()
    Image.fromarray(cells).save(where / "maps" / "cup.png")
    return where


def bench(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)


def test_rd_measures_real_files_of_both_sides(folder: Path, tmp_path: Path) -> None:
    done = bench(
        "rd", folder, "--quality", "0,20,40,60", "--rivals", "jpeg", "--no-cache", "--threads", 1,
        "--json", tmp_path / "rd.json", "--plot", tmp_path / "rd.svg", "--html",
        tmp_path / "rd.html", "--html-pictures", 1,
    )  # fmt: skip
    assert done.exit_code == 0
    assert "vcm against JPEG" in done.output
    record = json.loads((tmp_path / "rd.json").read_text())["rate_distortion"]
    own = [m for m in record["measurements"] if m["codec"] == "vcm"]
    assert [m["setting"] for m in own] == [0, 20, 40, 60]
    for m in own:
        assert m["bpp"] == pytest.approx(8 * m["num_bytes"] / PIXELS)
    picture = np.asarray(Image.open(folder / "cup.png"))
    assert len(Subject().encode(picture, 20)) == own[1]["num_bytes"]
    assert [m["num_bytes"] for m in own] == sorted(m["num_bytes"] for m in own)
    assert own[2]["psnr_db"] > own[0]["psnr_db"] + 1
    assert record["pictures"] == ["cup"]
    assert (tmp_path / "rd.svg").read_text().startswith("<?xml")
    page = (tmp_path / "rd.html").read_text()
    assert page.count("data:image/webp") == 3


def test_rd_as_json_is_nothing_but_json(folder: Path) -> None:
    done = bench(
        "rd", folder, "--quality", "20", "--rivals", "none", "--threads", 1, "--json", "-q"
    )
    assert done.exit_code == 0
    assert json.loads(done.stdout)["rate_distortion"]["comparisons"] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("speed", "--json", "photo.png"), "ends in .json"),
        (("rd", "nowhere"), "nowhere"),
        (("scale", "--megapixels", "two"), "numbers separated by commas"),
        (("speed", "--quality", "900"), "900"),
        (("speed", "--quality", "nan"), "nan"),
        (("rd", ".", "--plot", "curves.gif"), ".png or .svg"),
        (("rd", ".", "--html", "/dev/null/page.html"), "cannot be written"),
    ],
)
def test_wrong_usage_is_told(arguments: tuple[str, ...], words: str) -> None:
    done = bench(*arguments)
    assert done.exit_code == 2
    assert words in done.output


def test_structure_is_measured_against_one_plain_file(folder: Path) -> None:
    result = structure.run(folder, maps=folder / "maps", qualities=(0, 15, 30, 45))
    assert {c.anchor for c in result.comparisons} == {"plain"}
    assert [c.test for c in result.comparisons] == [
        "layers", "all groups", "three groups", "two groups", "layers and groups",
    ]  # fmt: skip
    assert result.groups == {
        "all groups": 4, "three groups": 3, "two groups": 2, "layers and groups": 4,
    }  # fmt: skip
    sizes = {(m.codec, m.setting): m.num_bytes for m in result.measurements}
    for quality in (0, 45):
        assert sizes["two groups", quality] > sizes["plain", quality]
    # More groups are never cheaper on the same picture.
    assert sizes["two groups", 45] < sizes["all groups", 45]
    assert len(structure.tables(result)[1].rows) == 5


def test_oddities_come_back_right() -> None:
    grey = np.full((40, 40, 3), 77, np.uint8)
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None] * 4, (48, 64, 3))
    pictures = [
        NamedPicture("one pixel", np.array([[[200, 30, 90]]], np.uint8)),
        NamedPicture("grey", grey),
        NamedPicture("ramp", np.ascontiguousarray(ramp)),
    ]
    result = oddities.run(pictures=pictures)
    for row in result.rows:
        assert row.psnr_db > min(row.flat_psnr_db, 27.0), row.picture
        assert row.webp_bytes > 0
    assert len(oddities.table(result).rows) == 3
    assert result.rows[1].flat_psnr_db == float("inf")


@pytest.mark.slow
def test_speed_names_every_operation_and_the_coders_share() -> None:
    result = speed.run(photo(256, 192), threads=1, repeats=1)
    rows = {row.operation: row for row in result.rows}
    assert set(rows) >= {
        "full encode", "full decode", "base-layer encode", "base-layer decode",
        "JPEG encode", "WebP decode", "AVIF encode",
    }  # fmt: skip
    for name in ("full encode", "full decode", "base-layer encode", "base-layer decode"):
        row = rows[name]
        assert row.entropy_share is not None
        assert 0 < row.entropy_share < 1
        assert row.kmacs_per_pixel == pytest.approx(sum(p.kmacs_per_pixel for p in row.parts))
    full, base = rows["full encode"].kmacs_per_pixel, rows["base-layer encode"].kmacs_per_pixel
    assert full is not None
    assert base is not None
    assert base < full / 3
    assert rows["JPEG encode"].kmacs_per_pixel is None
    assert len(speed.tables(result)) == 2


@pytest.mark.slow
def test_scale_measures_in_fresh_processes() -> None:
    result = scale.run((0.02,), threads=1)
    (row,) = result.rows
    assert row.failure is None
    assert (row.width, row.height) == scale.size_of(0.02)
    assert row.encode_peak_bytes is not None
    assert row.encode_peak_bytes > 50e6
    assert row.num_bytes is not None
    assert 100 < row.num_bytes < 20_000


def test_scale_tells_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    (row,) = scale.run((0.02,)).rows
    assert row.failure == "encode: ended with status 1"
    assert row.encode_s is None


def test_quality_out_of_range_is_refused(folder: Path) -> None:
    with pytest.raises(RequestError, match="outside 0 to 100"):
        bench("rd", folder, "--quality", "150", "--rivals", "none", "--threads", "1")


def test_help_loads_no_torch() -> None:
    code = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from vcmcodec.cli.bench import command\n"
        "assert CliRunner().invoke(command, ['rd', '--help']).exit_code == 0\n"
        "print([m for m in ('torch', 'numpy', 'scipy', 'matplotlib') if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
