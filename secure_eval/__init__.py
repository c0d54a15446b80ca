"""Blind scoring: integer models, the key holder (secret), the evaluator (public), openings."""
