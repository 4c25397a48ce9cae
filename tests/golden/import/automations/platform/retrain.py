"""Weekly retraining of the arrival model, and daily scoring of the fleet."""

import os

from qwak.automations import (
    Automation,
    AutoScaleQuerySpec,
    AutoScalingConfig,
    AutoScalingPrometheusTrigger,
    BatchExecution,
    BatchJobDataSpecifications,
    BatchJobExecutionSpecifications,
    BuildMetric,
    BuildSpecifications,
    CustomWebhook,
    DeploymentSpecifications,
    GpuResources,
    QwakBuildDeploy,
    ScheduledTrigger,
    SlackNotification,
    ThresholdDirection,
)
from settings import BRANCH, REPOSITORY

MODEL = "Arrival_Time"
FOLDER = "models/arrival"
scaling = AutoScalingConfig(
    min_replica_count=2,
    max_replica_count=4 * 2,
    polling_interval=30,
    cool_down_period=600,
    triggers=[
        AutoScalingPrometheusTrigger(
            query_spec=AutoScaleQuerySpec(metric_type="latency", aggregation_type="p95", time_period=4),
            threshold=250,
        )
    ],
)

slack = SlackNotification("https://hooks.slack.com/services/T0FLEET/B0FLEET/notARealOne")

weekly = Automation(
    name="Arrival: weekly retrain",
    model_id=MODEL,
    description="Every Sunday night",
    trigger=ScheduledTrigger(cron="0 3 * * 0"),
    action=QwakBuildDeploy(
        build_spec=BuildSpecifications(
            git_uri=f"{REPOSITORY}#{FOLDER}",
            git_access_token_secret="fleet_git_token",
            git_branch=BRANCH,
            tags=["weekly"],
            env_vars=["PYTHONUNBUFFERED=1", "MAPS_API_KEY=abc123", "REGION=secret.region"],
            parameters={"trees": 400},
            resources=GpuResources(gpu_type="NVIDIA_T4", gpu_amount=1),
            purchase_option="ondemand",
        ),
        deployment_condition=BuildMetric(
            metric_name="mae", direction=ThresholdDirection.BELOW_OR_EQUALS, threshold=4.5
        ),
        deployment_spec=DeploymentSpecifications(
            number_of_pods=3,
            cpu_fraction=1.5,
            memory="4Gi",
            variation_name="Main",
            environments=["production", "staging"],
            auto_scale_config=scaling,
            deployment_timeout=int(os.environ["DEPLOYMENT_TIMEOUT"]),
        ),
    ),
    on_error=slack,
    on_success=CustomWebhook(
        url="https://ci.acme-fleet.example/hooks/models",
        http_method="post",
        headers={"content-type": "application/json", "Authorization": "Bearer 12345"},
        data={"team": "arrival", "priority": 2},
    ),
)

scoring = Automation(
    name="fleet-scoring",
    model_id=MODEL,
    trigger=ScheduledTrigger(interval="daily"),
    action=BatchExecution(
        build_id="b2c4e6a8-1111-4222-8333-444455556666",
        data_specifications=BatchJobDataSpecifications(
            source_bucket="acme-fleet-trips",
            source_folder="in/{%Y-%m-%d}",
            input_file_type="CSV",
            destination_bucket="acme-fleet-scores",
            destination_folder="out/{%Y-%m-%d}",
            output_file_type="parquet",
        ),
        execution_specifications=BatchJobExecutionSpecifications(executors=4, memory="2Gib", params={"mode": "night"}),
    ),
    is_enabled=False,
)


def for_region(region):
    return Automation(name=f"retrain-{region}", model_id=MODEL)


regional = [for_region(region) for region in ("north", "south")]

if __name__ == "__main__":
    print(weekly)
