"""The package as it is installed: names, contents, and a fresh installation that works."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import vcmcodec
from vcmcodec import catalogue, demo
from vcmcodec.bitstream.constants import ProfileId, TaskId
from vcmcodec.errors import RequestError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def test_every_folder_of_code_is_a_package_that_is_installed(
    setup: configparser.ConfigParser,
) -> None:
    listed = set(setup["options"]["packages"].split())
    found = {
        ".".join(path.parent.relative_to(ROOT).parts) for path in ROOT.glob("vcmcodec/**/*.py")
    }
    assert listed == found | {"vcmcodec.weights", "vcmcodec.formats"}
    for package in found:
        assert (ROOT / package.replace(".", "/") / "__init__.py").is_file(), package


def test_what_is_required_is_pinned_to_what_was_tested(setup: configparser.ConfigParser) -> None:
    pins = {
        line.split("==")[0]
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    }
    required = {line.split(">=")[0] for line in setup["options"]["install_requires"].split()}
    assert {"torch", "compressai", "click", "numpy", "pillow", "rich", "range-coder"} <= required
    assert required <= pins
    extras = setup["options.extras_require"]
    for extra in ("bench", "test", "dev"):
        names = extras.get(extra, raw=True).split()
        assert {name for name in names if not name.startswith("%")} <= pins


def test_pyproject_says_how_to_build_and_nothing_else() -> None:
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert list(content) == ["build-system"]


def test_public_names_are_loaded_on_first_use() -> None:
    assert set(vcmcodec.__all__) - {"__version__"} == set(vcmcodec._HOMES)
    script = (
        "import sys, vcmcodec\n"
        "assert set(vcmcodec.__all__) <= set(dir(vcmcodec))\n"
        "assert vcmcodec.extract and vcmcodec.merge and vcmcodec.verify and vcmcodec.VcmError\n"
        "heavy = {'torch', 'compressai', 'numpy', 'PIL', 'click', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    with pytest.raises(AttributeError, match="no attribute 'compress'"):
        vcmcodec.compress  # noqa: B018
    for name in vcmcodec.__all__:
        assert getattr(vcmcodec, name) is not None


def test_the_catalogue_agrees_with_the_ids_of_the_format(setup: configparser.ConfigParser) -> None:
    assert {spec.id for spec in catalogue.TASKS} == set(TaskId)
    assert {spec.id for spec in catalogue.PROFILES} <= set(ProfileId)
    for spec in catalogue.PROFILES:
        assert spec.load().__name__ == spec.module
    for look_up, specs in (
        (catalogue.profile, catalogue.PROFILES),
        (catalogue.task, catalogue.TASKS),
    ):
        for spec in specs:
            assert look_up(spec.name) is look_up(spec.id) is spec
        with pytest.raises(RequestError, match=specs[0].name):
            look_up("nothing")
    guarded = setup["importlinter:contract:profiles"]["modules"].split()
    assert {spec.module for spec in catalogue.PROFILES} <= set(guarded)


def test_the_photograph_of_the_demo_is_a_file() -> None:
    assert demo.photograph().stat().st_size > 100_000


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # pip builds in the folder itself; ours stays clean
    source.mkdir()
    for name in ("vcmcodec", "weights", "formats", "setup.cfg", "pyproject.toml", "README.md"):
        subprocess.run(["cp", "-R", str(ROOT / name), str(source)], check=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, source],
        check=True,
    )
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_the_source_distribution_holds_the_checkout(tmp_path: Path) -> None:
    """It had some tests, and neither their helpers nor their files."""
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(
        ".git", ".venv", "*.egg-info", "__pycache__", ".*_cache", "demo"
    )
    shutil.copytree(ROOT, source, ignore=ignored)
    script = "from setuptools import build_meta as b; print(b.build_sdist('..'))"
    made = subprocess.run(
        [sys.executable, "-c", script], cwd=source, check=True, capture_output=True, text=True
    )
    with tarfile.open(tmp_path / made.stdout.splitlines()[-1]) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    folders = ("tests", "docs", "examples", "weights", "formats", "vcmcodec", ".ci")
    wanted = {
        path.relative_to(source).as_posix()
        for folder in folders for path in (source / folder).rglob("*") if path.is_file()
    }  # fmt: skip
    assert {"Makefile", "CHANGELOG.md", "constraints.txt", *wanted} <= held


@pytest.mark.slow
def test_the_wheel_holds_code_weights_and_norm_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        path.relative_to(ROOT).as_posix() for path in ROOT.glob("vcmcodec/**/*.py")
    } | {"vcmcodec/py.typed"}  # fmt: skip
    for folder, kinds in (
        ("weights", (".json", ".md", ".safetensors")),
        ("formats", (".md", ".ksy")),
    ):
        expected |= {
            f"vcmcodec/{path.relative_to(ROOT).as_posix()}"
            for path in (ROOT / folder).iterdir()
            if path.suffix in kinds
        }
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert "vcmcodec/weights/manifest.json" in names


@pytest.mark.slow
def test_a_fresh_installation_works_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """Installs everything from the package index; minutes, and the network."""
    bin_folder = tmp_path / "venv" / "bin"
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def run(*command: object) -> str:
        ended = subprocess.run(
            [str(part) for part in command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    run(sys.executable, "-m", "venv", tmp_path / "venv")
    pip = (bin_folder / "python", "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt")
    run(*pip, "torch", "torchvision")
    run(*pip, f"vcmcodec[demo] @ file://{wheel}")
    assert "scene" in run(bin_folder / "vcm", "models")
    run(bin_folder / "python", "-m", "vcmcodec.demo", "demo")
    assert (tmp_path / "demo" / "full.png").is_file()
