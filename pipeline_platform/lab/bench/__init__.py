"""Benchmarks on the platform's own processes and embedded servers, in a temporary home.

Absolute figures depend on the machine and its load: compare only within one run.
"""
