"""A person's picture -> what the network sees, and limits on what a picture may claim."""
