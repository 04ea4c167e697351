"""The engine of a collection that a NoPokeDB server keeps, reached over REST (extra "client") or gRPC (extra "grpc").

`engine.py` asks operations of one transport; `rest.py` and `channel.py` are the two that there are.
"""
