"""What a reviewer reads."""
