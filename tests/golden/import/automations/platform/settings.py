"""What our automations have in common."""

REPOSITORY = "https://github.com/acme-fleet/models.git"
BRANCH = "release"
COMMON = {"LOG_LEVEL": "info"}
