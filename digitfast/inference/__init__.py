"""A trained network in a file, ready to answer."""
