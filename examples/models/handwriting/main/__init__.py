"""The package that a build imports: `main_dir` of the build specification."""

from .model import HandwritingModel

__all__ = ["HandwritingModel"]
