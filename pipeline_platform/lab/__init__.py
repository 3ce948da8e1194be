"""Measurements: the demonstration of a migration, and the benchmarks."""
