"""Curves that others have published, in the JSON form of CompressAI's `results` folder.

    {"name": ..., "results": {"bpp": [...], "psnr-rgb": [...], "ms-ssim-rgb": [...]}}

They are context, not part of a run: another machine measured them, perhaps with other rules.
"""

from __future__ import annotations

import json
from pathlib import Path

from vcmcodec.errors import RequestError
from vcmcodec.evaluation.rate_curve import RateCurve, RatePoint


def read_curve(path: Path) -> RateCurve:
    """Read one published curve.

    Raises:
        RequestError: not such a file.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        results = record["results"]
        rates, qualities = results["bpp"], results["psnr-rgb"]
        similarities = results.get("ms-ssim-rgb", [None] * len(rates))
        points = tuple(
            RatePoint(float(i), float(bpp), float(psnr), None if ssim is None else float(ssim))
            for i, (bpp, psnr, ssim) in enumerate(zip(rates, qualities, similarities, strict=True))
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RequestError(f"{path}: not a published rate curve ({error})") from None
    # The file's name, since several codecs call themselves by one word in the file.
    return RateCurve(path.stem, tuple(sorted(points, key=lambda p: p.bpp)), published=True)


def read_curves(folder: Path) -> tuple[RateCurve, ...]:
    """Read every `*.json` of a folder, or one file, in order of name.

    Raises:
        RequestError: nothing there, or a file of another form.
    """
    paths = [folder] if folder.is_file() else sorted(folder.glob("*.json"))
    if not paths:
        raise RequestError(f"{folder}: no published curves (*.json) there")
    return tuple(read_curve(path) for path in paths)
