"""What a measurement was made with: versions, machine, threads."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("vcmcodec", "torch", "compressai", "pillow", "numpy", "scipy", "pytorch-msssim")


@dataclass(frozen=True)
class Environment:
    """Facts that a figure means nothing without; `versions` holds None for what is missing."""

    versions: dict[str, str | None]
    rivals: dict[str, str]
    python: str
    system: str
    processor: str
    cores: int
    threads: int


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def describe_environment(threads: int) -> Environment:
    """Return the facts of this process; `threads` is what the measurement was told to use."""
    import vcmcodec
    from vcmcodec.evaluation.rivals import RIVALS

    versions = {package: _version(package) for package in PACKAGES}
    versions["vcmcodec"] = getattr(vcmcodec, "__version__", versions["vcmcodec"])
    return Environment(
        versions=versions,
        rivals={rival.title: rival.version for rival in RIVALS.values()},
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        processor=_processor(),
        cores=os.cpu_count() or 1,
        threads=threads,
    )
