"""Network parts: no bytes, no files, no pictures."""
