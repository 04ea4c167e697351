"""Queries per second over REST, beside what the same framework reaches that only echoes the same payload.

`make bench-server` measures; server and load share the machine's cores.
"""
