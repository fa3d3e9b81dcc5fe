"""Measures: rate and distortion, speed, memory, size; ours beside other codecs in one run."""
