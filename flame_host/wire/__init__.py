"""The Flame API on the wire: protocol files, conversions and the services over them.

Nothing outside this package imports grpc or protobuf; it needs the extra ``flame-host[grpc]``.
"""
