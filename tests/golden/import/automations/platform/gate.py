import settings
from frogml.core import automations as fa
from frogml.core.automations.build_and_deploy_action import DeployedBuildMetric

SPEC = {"git_branch": settings.BRANCH, "env_vars": [f"{k}={v}" for k, v in settings.COMMON.items()]}

build_spec = fa.BuildSpecifications(git_uri=settings.REPOSITORY + "#models/fuel", **SPEC)

fuel_on_drift = fa.Automation(
    name="fuel-on-drift",
    model_id="fuel",
    environment="production",
    trigger=fa.MetricBasedTrigger(
        name="drift",
        metric=fa.SqlMetric(
            sql_query="""
select avg(abs(prediction - actual))
from fuel.predictions
where created > current_date - 7
"""
        ),
        direction=fa.ThresholdDirection.ABOVE,
        threshold="0.8",
    ),
    action=fa.FrogmlBuildDeploy(
        build_spec=build_spec,
        deployment_condition=DeployedBuildMetric("rmse", fa.ThresholdDirection.BELOW),
        deployment_spec=fa.DeploymentSpecifications(instance="Small"),
    ),
    execute_immediately=True,
)

fuel_by_hand = fa.Automation(
    name="fuel-by-hand",
    model_id="fuel",
    trigger=fa.NoneTrigger(),
    action=fa.FrogmlBuildDeploy(
        build_spec=fa.BuildSpecifications(git_uri="git@github.com:acme-fleet/models.git#models/fuel"),
        deployment_condition=fa.BuildMetric(
            metric_name="rmse",
            direction=fa.ThresholdDirection.BELOW,
            threshold="select min(rmse) from fuel_history",
        ),
        deployment_spec=fa.DeploymentSpecifications(variation_name="by-hand"),
    ),
)
