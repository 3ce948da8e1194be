"""Events that could not be processed or accepted: stored, listed, redriven, discarded, readmitted."""
