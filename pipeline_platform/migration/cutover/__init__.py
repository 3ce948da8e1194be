"""Cutover: which pipeline is production is one flag with an epoch; phases, their gates, and the watch after a turn."""
