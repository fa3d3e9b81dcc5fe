"""The page: whole in itself, every picture once, and alive in a real browser."""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vcmcodec.evaluation import gallery, page, rate_distortion
from vcmcodec.evaluation.corpora import photo
from vcmcodec.evaluation.rivals import RIVALS, choose

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome", "chrome")
     if (found := shutil.which(name))),
    None,
)  # fmt: skip


@pytest.fixture(scope="module")
def exhibited(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, gallery.Exhibit]:
    """A page of one picture, with WebP in our place and JPEG as its rival."""
    folder = tmp_path_factory.mktemp("page")
    Image.fromarray(photo(768, 512).rgb[150:450, 200:520]).save(folder / "cup <b>&.png")
    result = rate_distortion.run(
        folder, subject=None, qualities=(), rivals=choose(("webp", "jpeg"))
    )
    exhibits = gallery.collect(
        folder, result.measurements, RIVALS["webp"], choose(("jpeg",)), limit=3
    )
    return page.html_page(result, exhibits, "WebP"), exhibits[0]


def test_exhibit_is_at_equal_bytes(exhibited: tuple[str, gallery.Exhibit]) -> None:
    _, exhibit = exhibited
    original, own, rival = exhibit.versions
    assert original.figures is None
    assert own.figures is not None
    assert rival.figures is not None
    assert own.figures.bpp == pytest.approx(gallery.TARGET_BPP, rel=0.35)
    assert rival.figures.num_bytes <= own.figures.num_bytes
    with Image.open(io.BytesIO(rival.webp)) as image:
        shown = np.asarray(image.convert("RGB"))
    reference = photo(768, 512).rgb[150:450, 200:520]
    again = rate_distortion.psnr_db(reference, np.ascontiguousarray(shown))
    assert again == pytest.approx(rival.figures.psnr_db, abs=1e-9)


def test_crops_lie_inside_and_apart(exhibited: tuple[str, gallery.Exhibit]) -> None:
    _, exhibit = exhibited
    for left, top in exhibit.crops:
        assert 0 <= left <= exhibit.width - gallery.CROP
        assert 0 <= top <= exhibit.height - gallery.CROP
    (a, b), (c, d) = exhibit.crops
    assert max(abs(a - c), abs(b - d)) >= gallery.CROP // 2


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        wanted = ("src", "href", "srcset", "data", "action")
        self.links += [value or "" for name, value in attrs if name in wanted]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_needs_nothing_else(exhibited: tuple[str, gallery.Exhibit]) -> None:
    text, exhibit = exhibited
    parser = _Links()
    parser.feed(text)
    assert [link for link in parser.links if not link.startswith(("#", "data:"))] == []
    addresses = re.findall(r"url\((.)", text)
    assert addresses.count("d") == len(exhibit.versions)
    # The rest are the chart's own clip paths, inside the page.
    assert set(addresses) == {"d", "#"}
    assert "Content-Security-Policy" in text
    for version in exhibit.versions:
        assert text.count(base64.b64encode(version.webp).decode("ascii")) == 1
    assert "cup <b>&" in parser.text
    assert "<b>" not in text


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on the path")
def test_page_lives_in_a_browser(exhibited: tuple[str, gallery.Exhibit], tmp_path: Path) -> None:
    text, exhibit = exhibited
    target = tmp_path / "page.html"
    target.write_text(text, encoding="utf-8")
    assert BROWSER is not None
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000",
         f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", target.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    dom = done.stdout
    assert 'data-ready="yes"' in dom
    tags = re.findall(r'<span class="tag [ab]">([^<]*)</span>', dom)
    own, rival = exhibit.versions[1].figures, exhibit.versions[2].figures
    assert own is not None
    assert rival is not None
    assert f"{own.num_bytes:,} bytes" in tags[0]
    assert f"{rival.num_bytes:,} bytes" in tags[1]
