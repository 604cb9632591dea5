"""The models of a server: which versions are loaded, and how a version computes an answer."""
