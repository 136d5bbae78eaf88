"""Benchmarks: gradlab against its peers, in the same run."""
