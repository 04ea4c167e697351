"""The server: one folder of collections, over REST and gRPC (extra "server").

ARCHITECTURE.md has the map; `service.py` is where both transports meet the library.
"""
