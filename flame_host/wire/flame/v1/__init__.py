"""Package ``flame.v1``: the protocol files and the code generated from them (``make protos``)."""
