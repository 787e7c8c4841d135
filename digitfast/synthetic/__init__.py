"""Drawn letters, scribbles, photos and pages: to learn from and to test with."""
