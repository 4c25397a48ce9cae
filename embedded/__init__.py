"""The embedded data plane: a small Kubernetes API server for one machine.

`python -m embedded --data DIR` serves, over HTTPS on a loopback address, the part of the Kubernetes API that Trueup
uses, with the behaviour of kube-apiserver 1.36: kubectl and every client library work with the kubeconfig that it
writes. `tests/contract/` states that behaviour, and holds this server and a real one to it. It is for laptops, CI and
tests; it is not for production.

How it is made, from the outside in:

    protocol      HTTP/1.1 over TLS; one thread, one request at a time
    server        paths, methods and options -> what is asked for
    discovery     which kinds there are: groups, resources, OpenAPI
    reading       lists and watches;  selectors, views and tables: which objects, in which form
    codec         bodies: JSON, YAML, protobuf
    objects       what a write means;  deletion, admission, scaling, reviews: what is special about it for some kinds
    controllers   what follows from a write: namespaces, CustomResourceDefinitions;  garbage: owners
    merge, patch  server-side apply and the patches;  fields: sets of fields and who owns them
    kinds, schema what an object of a kind may be: names, types, defaults, rules
    store         SQLite: every version of every object
    security      certificate authority, token, kubeconfig

Nothing here knows of specs or of the reconciler: both sides meet in the Kubernetes API.
"""
