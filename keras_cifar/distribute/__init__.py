"""Training by several processes, on one machine or many: who they are, and what Keras lacks."""
