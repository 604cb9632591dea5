"""What a run's model answers, and figures of that."""
