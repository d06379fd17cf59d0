"""Slow, obvious twins of the fast code: written from the definitions, never optimised."""
