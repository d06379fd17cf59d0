"""From raw logs to prepared datasets and batches."""
