"""Replay: a window of what was accepted is processed again: plan → diff → commit → undo.

plan.py counts and writes the ledger of chunks, steps.py moves a replay from state to state, report.py says what its
diff found and what its commit did. The work itself is the workers', in their lane `replay` (worker/replay_lane.py).
"""
