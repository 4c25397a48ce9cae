"""The prediction server: one process that speaks HTTP, and processes that compute.

    caller -> front (http, app, pool) -> worker (the model's code)
                     |                    made by the template, which forks
                     `-> recorder (the inference log, to object storage)

The front never runs a line of the model's code, so nothing that a model does (hangs, holds the interpreter's lock,
ends its process, eats the memory) keeps it from answering: a request that takes too long gets its 504 at the moment
that it is due, and the process that hangs is killed and replaced. There is one queue for all workers, so a request
waits only while every worker is busy, batches form out of what waits anyway, counters need no summing up, and a worker
that dies takes the requests that it was computing and no connection.

Why this and no framework. Predictions/s and p50 at 8 connections, wrk and server on the same two cores, three seconds
each, a model that sums three numbers, JSON in and out:

    uvicorn, 2 workers                     20,300    0.32 ms     the model runs in the server's own process
    granian RSGI, 2 workers                17,500    0.41 ms     the same
    gunicorn 27 (asgi), 2 workers          14,500    0.47 ms     the same
    granian ASGI, 2 workers                12,500    0.62 ms     the same
    httptools + uvloop, no framework       52,700    0.13 ms     the same, one process
    httptools + uvloop + 2 model processes 23,100    0.31 ms     this design, bare: the hop is paid for by the parser
    this package                           17,200    0.40 ms     2 workers, no inference log

None of the frameworks ends a request at its time while the model holds the interpreter, nor replaces one worker
without its connections, nor refuses a body before it has been read. And each would be resolved together with the
model's own requirements, where `click` or `starlette` at another version is a build that fails; httptools and uvloop
have no dependencies.
`python -m tests.benchmarks serve` measures the whole server beside the bare one.
"""
