"""Agents: act on graphs, learn from rewards; they know neither networks nor pruning."""
