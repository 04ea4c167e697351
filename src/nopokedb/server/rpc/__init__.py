"""gRPC on the service layer: handlers, keys, health and reflection, and the life of its port."""
