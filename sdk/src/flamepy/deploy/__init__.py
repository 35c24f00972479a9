"""Serving what ``flame build`` made: by name of a deployer, of which ``directory`` comes with the SDK."""
