"""The object cache of a Flame cluster, over Arrow Flight."""
