"""Building blocks that know sequences and segments but nothing of recommendation."""
