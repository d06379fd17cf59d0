"""Attention operators: one class, one file."""
