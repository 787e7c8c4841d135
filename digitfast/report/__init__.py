"""A report of one run, as one HTML page."""
