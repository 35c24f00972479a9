"""Programs on a Flame cluster: the engine for ``http://`` and ``https://`` endpoints."""
