"""The package that a build imports: `main_dir` of the build specification."""

from .model import ScreeningModel

__all__ = ["ScreeningModel"]
