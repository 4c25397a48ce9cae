"""What `runtime build` runs as child processes, in the model's environment: the steps that run the model's code.

Each is told where to write its answer, a JSON document: what it found, or `error`, a sentence with a reason.
"""
