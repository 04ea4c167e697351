"""The embedded engine: one folder on disk, in this process."""
