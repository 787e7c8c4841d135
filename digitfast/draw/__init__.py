"""The page to draw digits on."""
