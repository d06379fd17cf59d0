"""Many runs at once: how they are trained, what they come to, and what they cost."""
