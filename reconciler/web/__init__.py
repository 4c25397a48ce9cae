"""What the reconciler answers over HTTP: how it is, for probes, Prometheus and people; and webhooks of Git servers."""
