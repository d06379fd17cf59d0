"""Many runs at once: what they have to show, and what they cost."""
