"""What was written once and must stay readable, and how it was made."""
