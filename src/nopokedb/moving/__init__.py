"""Collections of other programs become collections of this one: one module for each program, migrating.py for all."""
