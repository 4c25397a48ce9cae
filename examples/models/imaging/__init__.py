"""What several models do to images before they look at them (`dependency_required_folders` of a build)."""

from __future__ import annotations

import pandas as pd

#: The darkest value of the scanners' 8 by 8 pixel pictures.
DARKEST = 16.0


def ink(pictures: pd.DataFrame) -> pd.DataFrame:
    """The share of ink in each pixel, 0 to 1. What lies outside the scanners' range is noise, and cut off."""
    return pictures.clip(lower=0, upper=DARKEST) / DARKEST
