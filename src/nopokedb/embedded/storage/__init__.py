"""What is true: the operation log, vectors, metadata and the manifest. Survives power loss."""
