"""The networks written here, and every other by name."""
