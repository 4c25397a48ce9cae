"""What runs inside a build container and a serving container. Needs Python 3.11, and of other packages almost none.

A copy of this package works in any image (`runtime copy`); the model's code runs in an environment of its own, which
has another copy.
"""
