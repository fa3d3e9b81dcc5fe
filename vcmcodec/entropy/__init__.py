"""Integer probability tables and the coders that use them."""
