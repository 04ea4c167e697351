"""Benchmarks: the original project's table beside today's peers, and the ratios this project aims for."""
