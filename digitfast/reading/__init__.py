"""A photo → the numbers in it."""
