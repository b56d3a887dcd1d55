"""Networks that return their stages, and what is put on them: observations, the representation, classifiers."""
