"""The command line: one command per file. Nothing else in the package imports this."""
