"""Training: `fit` a `RunConfig`, evaluate, calibrate, resume."""
