"""Load one compiled module out of an installed package without running that package.

`import compressai` takes seconds and pulls in torch; `import range_coder` pulls in numpy.  The
coders need neither, only the compiled module inside.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

from vcmcodec.errors import RequestError


@cache
def load(package: str, module: str) -> ModuleType:
    """Return the compiled module `package.module`, loaded from its file alone.

    Raises:
        RequestError: the package is not installed, or has no such module for this Python.
    """
    advice = f"the entropy coder needs {package}.{module}; install it with: pip install "
    advice += package.replace("_", "-")
    spec = importlib.util.find_spec(package)  # finds a top-level package, does not run it
    if spec is None or not spec.submodule_search_locations:
        raise RequestError(f"{advice} (the package is not installed)")
    for folder in spec.submodule_search_locations:
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            path = Path(folder, module + suffix)
            if path.is_file():
                return _load_file(f"{package}.{module}", path, advice)
    raise RequestError(f"{advice} (the installed package has no such module for this Python)")


def _load_file(name: str, path: Path, advice: str) -> ModuleType:
    loader = importlib.machinery.ExtensionFileLoader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None  # a loader was given
    try:
        loaded = importlib.util.module_from_spec(spec)
        loader.exec_module(loaded)
    except ImportError as error:
        raise RequestError(f"{advice} (it cannot be loaded: {error})") from error
    return loaded
