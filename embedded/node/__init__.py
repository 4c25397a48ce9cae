"""The process runner: the kubelet of the embedded data plane.

Pods run as processes of this machine, each pod on a loopback address of its own. Images are not pulled: a container is
its command, its environment and its mounts, and what they name comes from this machine. There is no isolation between
containers, or between them and the user who started them.

    addresses      which part of 127.0.0.0/8 is ours
    environment    pure: what a container's process is started with
    volumes        the files of a pod
    processes      starting a process, ending it and all that it started
    leftovers      what a runner that was killed left running
    memory         who has more memory than its limit
    logs           what containers print, and how `kubectl logs` reads it
    probes         asking a container how it is
    container      the life of one container
    pod            the life of one pod
    status         pure: what of it a Pod's status says
    events         what of it `kubectl describe` says
    node           all pods of this machine, and the Node object
"""
