"""What the reconciler tells: logs, metrics, Events, where everything stands, and a page for people."""
