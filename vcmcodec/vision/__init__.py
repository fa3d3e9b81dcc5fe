"""The reference vision network, its tasks and their results."""
