"""The command line: click and rich, and one call downward for each command."""
