"""Benchmarks on the platform's own processes and embedded servers, in a home that is thrown away.

Absolute figures belong to the machine and the moment: compare within one run.
"""
