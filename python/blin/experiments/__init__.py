"""Many trainings that belong together: sweeps, ablations, and what they come to."""
