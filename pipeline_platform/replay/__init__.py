"""Replay: process a window of accepted events again: plan → diff → commit → undo.

plan.py counts the window and writes the chunks. steps.py moves a replay from state to state. report.py shows
the results of its diff and its commit. The workers do the processing, in their lane `replay` (worker/replay_lane.py).
"""
