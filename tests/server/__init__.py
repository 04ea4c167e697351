"""The server, as its clients see it: real processes, real sockets."""
