"""Learning-rate schedules, and the optimisers and weight averaging that Keras lacks."""
