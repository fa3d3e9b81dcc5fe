"""What is coded, one file a profile."""
