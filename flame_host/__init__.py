"""An executor host for Python whose every format is a plugin."""

__version__ = "0.1.0"
