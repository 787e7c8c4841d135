"""Digits in any form → batches."""
