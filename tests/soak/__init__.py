"""Slow proofs of a run that is killed again and again."""
