"""``python -m flamepy.runner.runpy``: the entrypoint a Flame cluster starts; the same as ``python -m flame_host``."""

from __future__ import annotations

from flamepy.runpy import FlameRunpyService, main

__all__ = ["FlameRunpyService", "main"]

if __name__ == "__main__":
    main()
