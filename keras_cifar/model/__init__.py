"""The networks: each a function from plain values to an uncompiled model."""
