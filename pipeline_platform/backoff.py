"""How long to wait before the next try: twice as long after each failure, up to a limit.

Whoever may retry at the same moment as others adds jitter, so that they do not all come back at once.
"""

import random

# 2 to this power exceeds every limit. Larger powers would not fit into a float one day.
_DOUBLINGS_MAX = 64


def step_s(failures: int, first_s: float, max_s: float) -> float:
    """Seconds to wait after `failures` failures in a row (1 or more): `first_s` after the first."""
    return min(first_s * 2 ** min(failures - 1, _DOUBLINGS_MAX), max_s)


def jittered_s(failures: int, first_s: float, max_s: float) -> float:
    """Between half and all of `step_s`, at random."""
    return step_s(failures, first_s, max_s) * random.uniform(0.5, 1.0)  # noqa: S311
