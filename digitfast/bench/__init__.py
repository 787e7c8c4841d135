"""Benchmarks of digitfast against the article's code."""
