"""The kit for plugin authors: a contract suite per family, fakes, and a pytest plugin."""
