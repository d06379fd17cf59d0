"""How good a model is, by a stated protocol."""
