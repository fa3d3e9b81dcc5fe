"""The contract of an entropy coder for latents: what the catalogue may name.

An encoder collects parts and codes them as one run; a decoder gives the parts back in the same
order.  A part is a flat array of integers and, for each, the table that codes it.  Places whose
table index is below `tables.skip` are not coded and read as zero.  A run in which nothing is
coded is no bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy.typing as npt

    from vcmcodec.entropy.cdf import IntArray, Tables


class Encoder(Protocol):
    """Made from `Tables`; see `rans.RansEncoder`."""

    def __init__(self, tables: Tables) -> None: ...

    def push(self, symbols: npt.ArrayLike, table_index: npt.ArrayLike) -> None:
        """Add one part."""
        ...

    def finish(self) -> bytes:
        """Return the bytes of the run."""
        ...


class Decoder(Protocol):
    """Made from the same `Tables` and the bytes of a run; see `rans.RansDecoder`."""

    def __init__(self, tables: Tables, data: bytes) -> None: ...

    def pull(self, table_index: npt.ArrayLike) -> IntArray:
        """Decode one part; raises FormatError if the run is damaged."""
        ...

    def finish(self) -> None:
        """Check that the run ends here; raises FormatError if it does not."""
        ...
