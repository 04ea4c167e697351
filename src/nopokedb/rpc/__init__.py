"""gRPC's messages, for the server and for its clients: one .proto, what is generated from it, and the way between its
messages and the requests and results of the server."""
