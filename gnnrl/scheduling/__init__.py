"""Job scheduling: the second discipline, on the same agents as pruning."""
