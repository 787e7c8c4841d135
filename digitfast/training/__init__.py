"""A `Learner` → a trained `Learner`."""
