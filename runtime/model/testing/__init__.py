"""For the tests of a model."""
