"""Bytes of a `.vcm` file and the objects they stand for; standard library only."""
