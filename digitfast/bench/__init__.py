"""digitfast, measured against the article's code."""
