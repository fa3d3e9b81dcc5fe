"""One file a task: from the network's raw maps to results."""
