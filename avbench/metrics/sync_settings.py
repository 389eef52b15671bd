"""Holds the settings of sync.py, which are stored with its scores. The table of metrics reads them without scipy."""

TOLERANCE_SECONDS = 0.1
LAG_SECONDS = 0.5
"""The largest lag that is searched for, in both directions."""
LAG_STEP_SECONDS = 0.005
LAG_COST = 0.3
"""A lag of one second lowers the agreement by this share in the search for the lag."""
NULL_SHIFTS = 99
"""Number of offsets, evenly spread around the clip."""
NULL_LEAST_SECONDS = 0.2
"""Smaller offsets are too near to 0 to count as chance."""
OTHERS = 20
"""Other clips whose sounds give `av_align` by chance."""

MATCHED = {"tolerance_seconds": TOLERANCE_SECONDS}
SHIFTED = {
    **MATCHED,
    "null_shifts": NULL_SHIFTS,
    "null_least_seconds": NULL_LEAST_SECONDS,
    "null_needs_onset": True,
}
LAGGED = {**MATCHED, "lag_seconds": LAG_SECONDS, "lag_step_seconds": LAG_STEP_SECONDS, "lag_cost": LAG_COST}
BESIDE_OTHERS = {"others": OTHERS}
