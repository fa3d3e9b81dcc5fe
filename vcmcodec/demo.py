"""`python -m vcmcodec.demo [FOLDER]`: a tour of the product on a real photograph.

It types the commands that a user would type, shows what they print, and says what happened.  The
photograph is the portrait of the astronaut Eileen Collins (NASA, public domain) that comes inside
the scikit-image package; nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import sys
from pathlib import Path

import click

from vcmcodec.errors import RequestError, VcmError

# Drawn by hand; pixels, [x, y, width, height].
BOXES = [
    {"label": "person", "score": 0.99, "box": [32, 0, 380, 512]},
    {"label": "face", "score": 0.97, "box": [160, 16, 144, 176]},
    {"label": "flag", "score": 0.94, "box": [0, 0, 112, 400]},
    {"label": "shuttle", "score": 0.91, "box": [352, 0, 144, 288]},
]


def photograph() -> Path:
    """The photograph's place in the installed scikit-image, which is not imported.

    Raises:
        RequestError: scikit-image is not installed.
    """
    found = importlib.util.find_spec("skimage")
    for place in (found.submodule_search_locations or ()) if found else ():
        path = Path(place) / "data" / "astronaut.png"
        if path.is_file():
            return path
    raise RequestError(
        "the demo's photograph comes with scikit-image: pip install 'vcmcodec[demo]'"
    )


def run(folder: Path) -> None:
    """Play the tour in `folder`, which is made if it is not there.

    Raises:
        VcmError: a step failed; the folder then holds what was made until then.
    """
    picture = photograph()
    pictures = folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(picture, pictures / "astronaut.png")
    (folder / "boxes.json").write_text(json.dumps(BOXES, indent=1) + "\n")
    before = Path.cwd()
    os.chdir(folder)
    try:
        _tour()
    finally:
        os.chdir(before)
    _say(f"Everything lies in {folder.resolve()}.  Open the pictures side by side.")


def _tour() -> None:
    original = "pictures/astronaut.png"
    _say(f"A photograph of 512 x 512 pixels, {_bytes(original)} as PNG, and four boxes in it.")
    _vcm(f"encode {original} -o full.vcm --groups boxes.json --verbose")
    _say(
        "One file: a base layer for machines, two more for people, and every box a group that is"
        " coded on its own."
    )
    _vcm("info full.vcm")

    _say("For people: the whole picture.")
    _vcm("decode full.vcm -o full.png --verbose")
    _say(f"It differs from the original by {_psnr(original, 'full.png')}.")

    _say("A preview from the base layer alone, by a quarter of the network.")
    _vcm("decode full.vcm -o preview.png --width 0.25 --verbose")
    _say(f"It differs from the original by {_psnr(original, 'preview.png')}.")

    _say("One group.  No other group is decoded; what is absent is transparent.")
    _vcm("decode full.vcm -o shuttle.png --groups shuttle --verbose")

    _say("For machines: the base layer as a file of its own.  Bytes are moved, no network runs.")
    _vcm("extract full.vcm -o base.vcm --task detection --verbose")
    _vcm("extract full.vcm -o enhancement.vcm --layer mid --layer full --verbose")
    base, whole = Path("base.vcm").stat().st_size, Path("full.vcm").stat().st_size
    _say(f"A machine reads {base:,} of {whole:,} bytes, {100 * base / whole:.0f} %.")
    _vcm("merge base.vcm enhancement.vcm -o merged.vcm")
    same = Path("merged.vcm").read_bytes() == Path("full.vcm").read_bytes()
    if not same:
        raise RequestError("the merged file is not the original; this is a bug")
    _say("merged.vcm and full.vcm are the same, byte for byte.")

    _say(
        "A copy for the world: the face is gone, with its label, score and box; its cells are"
        " merely absent."
    )
    _vcm("extract full.vcm -o private.vcm --drop-groups face --redact --verbose")
    _vcm("decode private.vcm -o private.png --background black --verbose")
    _vcm("verify full.vcm private.vcm")


def _vcm(line: str) -> None:
    """Type a command, in this process, so that torch is loaded only once."""
    from vcmcodec.cli.main import vcm

    click.echo(click.style(f"$ vcm {line}", bold=True))
    sys.stdout.flush()
    try:
        vcm.main(shlex.split(line), prog_name="vcm")
    except SystemExit as ended:
        if ended.code:
            raise RequestError(f"`vcm {line}` ended with {ended.code}") from None


def _say(text: str) -> None:
    click.echo()
    click.echo(click.wrap_text(text, 96))
    click.echo()


def _bytes(path: str) -> str:
    return f"{Path(path).stat().st_size:,} bytes"


def _psnr(original: str, decoded: str) -> str:
    """How far two pictures are apart, in words."""
    import numpy as np

    from vcmcodec import pixels

    difference = pixels.read(original).rgb.astype(np.float64) - pixels.read(decoded).rgb
    mean_square = float(np.square(difference).mean())
    return f"{10 * np.log10(255**2 / mean_square):.1f} dB PSNR" if mean_square else "nothing"


def main() -> None:
    """Run the tour in the folder named on the command line, `demo` by default."""
    try:
        run(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
    except VcmError as error:
        click.echo(f"demo: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
