"""Cutover: phases, their gates, and the watch. A flag with an epoch decides which pipeline is production."""
