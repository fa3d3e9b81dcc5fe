"""For all rooms: helpers beside this file can be imported, and torch runs on one thread."""

from __future__ import annotations

import os

# Small pictures on many threads cost more than they save, and suites run side by side.  Set before
# torch is imported; tests of threads set their own.
os.environ.setdefault("OMP_NUM_THREADS", "1")
