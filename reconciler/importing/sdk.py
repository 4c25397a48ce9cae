"""The names of the reference platform's SDK that its automation files are made of.

The order of a constructor's parameters is that of the SDK, because an argument may come without its name. It is a
fact about the interface (qwak-core 0.7, frogml 2.1); nothing of the SDK is needed to read what was written for it.
"""

from __future__ import annotations

#: The packages by which the SDK has been known.
PACKAGES = frozenset({"qwak", "qwak_sdk", "frogml", "frogml_sdk", "frogml_core"})

AUTOMATION = "Automation"

#: Constructor -> its parameters in order.
CONSTRUCTORS: dict[str, tuple[str, ...]] = {
    AUTOMATION: (
        "id", "name", "model_id", "execute_immediately", "trigger", "action", "description", "environment",
        "is_enabled", "is_deleted", "is_sdk_v1", "create_audit", "on_error", "on_success", "jfrog_token_id",
        "platform_url",
    ),
    "ScheduledTrigger": ("cron", "interval"),
    "IntervalBasedTrigger": ("interval",),
    "MetricBasedTrigger": ("name", "metric", "direction", "threshold", "override_cron"),
    "NoneTrigger": (),
    "OnBoardingTrigger": (),
    "SqlMetric": ("sql_query",),
    "BuildDeploy": ("build_spec", "deployment_condition", "deployment_spec"),
    "BuildMetric": ("metric_name", "direction", "threshold"),
    "DeployedBuildMetric": ("metric_name", "direction", "variation"),
    "BuildSpecifications": (
        "parameters", "git_uri", "tags", "git_access_token_secret", "git_branch", "main_dir", "base_image",
        "assumed_iam_role", "resources", "dependency_file_path", "env_vars", "git_ssh_token_secret", "gpu_compatible",
        "push_image", "purchase_option", "provision_instance_timeout", "service_account_key_secret_name",
    ),
    "CpuResources": ("cpu_fraction", "memory"),
    "GpuResources": ("gpu_type", "gpu_amount"),
    "ClientResources": ("instance", "gpu_resources", "cpu_resources"),
    "DeploymentSpecifications": (
        "number_of_http_server_workers", "http_request_timeout_ms", "max_batch_size", "daemon_mode", "variation_name",
        "custom_iam_role_arn", "number_of_pods", "cpu_fraction", "memory", "gpu_resources", "auto_scale_config",
        "environments", "env_vars", "deployment_timeout", "instance", "service_account_key_secret_name",
    ),
    "AutoScalingConfig": (
        "min_replica_count", "max_replica_count", "polling_interval", "cool_down_period", "triggers",
    ),
    "AutoScalingPrometheusTrigger": ("query_spec", "threshold"),
    "AutoScaleQuerySpec": ("metric_type", "aggregation_type", "time_period"),
    "BatchExecution": ("build_id", "data_specifications", "execution_specifications"),
    # The newer SDK has session_token_secret_name as the third: by position the two cannot be told apart.
    "BatchJobDataSpecifications": ("access_token_secret_name", "access_secret_secret_name"),
    "BatchJobExecutionSpecifications": (
        "job_timeout", "task_timeout", "executors", "cpu", "memory", "gpu_type", "gpu_amount", "custom_iam_role_arn",
        "params", "instance",
    ),
    "SlackNotification": ("webhook",),
    "CustomWebhook": ("url", "http_method", "headers", "data"),
}  # fmt: skip

#: Parameters beyond those in order, which are given by name alone.
BY_NAME: dict[str, tuple[str, ...]] = {
    "BatchJobDataSpecifications": (
        "session_token_secret_name", "source_bucket", "source_folder", "input_file_type", "destination_bucket",
        "destination_folder", "output_file_type",
    ),
    "BuildSpecifications": ("dependency_required_folders",),
    "DeploymentSpecifications": ("deployment_process_timeout_limit", "purchase_option"),
    "AutoScaleQuerySpec": ("error_code",),
}  # fmt: skip

#: What one class is called in the two namings of the SDK.
SAME = {"QwakBuildDeploy": "BuildDeploy", "FrogmlBuildDeploy": "BuildDeploy", "FrogMlBuildDeploy": "BuildDeploy"}

#: Enumeration -> member -> how a spec writes it.
ENUMERATIONS: dict[str, dict[str, str]] = {
    "ThresholdDirection": {
        name: name for name in ("ABOVE", "BELOW", "EQUALS", "BELOW_OR_EQUALS", "ABOVE_OR_EQUALS")
    },
    "MetricType": {name: name for name in ("cpu", "gpu", "memory", "latency", "error_rate", "throughput")},
    "AggregationType": {name: name for name in ("avg", "max", "min", "sum", "p50", "p90", "p95", "p99")},
}  # fmt: skip


def constructor(name: str) -> str | None:
    """The class that a name of the SDK stands for, in the words of this file."""
    name = SAME.get(name, name)
    return name if name in CONSTRUCTORS else None
