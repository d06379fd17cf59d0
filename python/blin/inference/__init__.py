"""From a trained model to what users may want next."""
