"""The automations of Python files -> ours."""

from __future__ import annotations

import re
from typing import Any

from reconciler.importing import forms
from reconciler.importing.context import Automated, Context
from reconciler.importing.forms import Form, Told, given, unless
from reconciler.importing.naming import Name
from reconciler.importing.values import Made, Unknown, Value, plain
from reconciler.importing.writing import Lost, Noted

#: What the platform's server fills in.
_OF_THE_SERVER = ("id", "is_deleted", "is_sdk_v1", "create_audit", "jfrog_token_id", "platform_url")
_INTERVALS = {name.lower(): name for name in ("Hourly", "Daily", "Weekly")}


def read(value: Value, context: Context) -> Automated:
    """One automation."""
    told = context.told
    assert isinstance(value.data, Made)
    form = Form(value.data.fields, value.place, told, "the automation")
    called = form.take("name")
    text = called if isinstance(called, str) and called.strip() else "automation"
    if text is not called and not isinstance(called, Lost):
        told.undecided(value.place, "The automation has no name.", "name it in the result")
    form.subject = f"the automation {text}"
    model = form.text("model_id").lower()
    if not model:
        told.undecided(value.place, f"The model of the automation {text} is not known.", "write it into the result")
    result = Automated(Name("automation", text), model, value.place, {}, plain(value))
    environment = form.text("environment")
    trigger = _trigger(form.value("trigger"), form)
    action = form.value("action")
    done = _action(action, result, context)
    result.fields = given(
        name=result.name,
        model=Name("model", model) if model else Lost("the model is not known"),
        description=form.take("description"),
        environment=context.environment(environment, value.place) if environment else None,
        trigger=trigger,
        **done,
        execute_immediately=form.take("execute_immediately") or None,
        enabled=unless(True, form.take("is_enabled")),
        on_success=_notification(form.value("on_success"), result, told),
        on_error=_notification(form.value("on_error"), result, told),
    )
    form.ignore(*_OF_THE_SERVER)
    form.end()
    return result


# -- triggers ---------------------------------------------------------------------------------------------------------


def _trigger(value: Value | None, automation: Form) -> Any:
    told, what = automation.told, f"the trigger of {automation.subject}"
    if value is None:
        return told.undecided(automation.place, f"{what} is missing.", "write trigger: manual, or another one")
    match value.data:
        case Made("NoneTrigger" | "OnBoardingTrigger"):
            return "manual"
        case Made("ScheduledTrigger" | "IntervalBasedTrigger", fields):
            return _scheduled(Form(fields, value.place, told, what))
        case Made("MetricBasedTrigger", fields):
            return _metric(Form(fields, value.place, told, what))
    return (
        forms.simple(value, told, what)
        if isinstance(value.data, Unknown | Made)
        else told.undecided(value.place, f"{what} is none of the platform's.", "write trigger: manual, or another one")
    )


def _scheduled(form: Form) -> Any:
    cron, interval = form.take("cron"), form.take("interval")
    form.end()
    if cron is not None and interval is not None:
        form.told.changed(form.place, f"{form.subject} has both cron and interval; the platform takes the interval.")
    if isinstance(interval, str):
        interval = _INTERVALS.get(interval.lower(), interval)
    if cron is None and interval is None:
        return form.told.undecided(form.place, f"{form.subject} says no time.", "write cron or interval")
    return {"scheduled": {"interval": interval} if interval is not None else {"cron": cron}}


def _metric(form: Form) -> Any:
    form.ignore("name")  # nobody asks for it by name
    metric = form.form("metric", "SqlMetric")
    query = metric.take("sql_query", forms.sql)
    metric.end()
    cron = form.take("override_cron")
    if cron is None:
        form.told.changed(
            form.place, f"{form.subject} is looked at every hour; how often the platform does is not said."
        )
    fields = given(
        sql_query=query,
        direction=unless("ABOVE", form.take("direction", _direction)),
        threshold=form.take("threshold", forms.threshold),
        override_cron=cron,
    )
    form.end()
    return {"metric": fields}


def _direction(value: Value, told: Told, what: str) -> Any:
    text = forms.upper(value, told, what)
    return text.rpartition(".")[2] if isinstance(text, str) else text


# -- actions ----------------------------------------------------------------------------------------------------------


def _action(value: Value | None, result: Automated, context: Context) -> dict[str, Any]:
    told, automation = context.told, f"the automation {result.name.text}"
    what = f"the action of {automation}"
    match value.data if value is not None else None:
        case Made("BuildDeploy", fields):
            assert value is not None
            return _build_deploy(Form(fields, value.place, told, automation), result, context)
        case Made("BatchExecution", fields):
            assert value is not None
            return {"batch_execution": _batch(Form(fields, value.place, told, automation), result)}
    if value is None:
        lost: Any = told.undecided(result.place, f"{what} is missing.", "write build_spec, or batch_execution")
    elif isinstance(value.data, Unknown | Made):
        lost = forms.simple(value, told, what)
    else:
        lost = told.undecided(value.place, f"{what} is none of the platform's.", "write build_spec, or batch_execution")
    return {"build_spec": lost}


def _build_deploy(form: Form, result: Automated, context: Context) -> dict[str, Any]:
    build = form.form("build_spec", "BuildSpecifications")
    build_spec = _build_spec(build, result, context.told)
    condition = _condition(form.value("deployment_condition"), form)
    deployment = form.value("deployment_spec")
    deployment_spec: Any = None
    if deployment is not None:
        target = Form.of(
            deployment, form.place, form.told, f"deployment_spec of {form.subject}", "DeploymentSpecifications"
        )
        deployment_spec = _deployment_spec(target, result, context)
    elif condition is not None:
        message = f"{form.subject} has a condition and deploys nowhere."
        deployment_spec = form.told.undecided(form.place, message, "write deployment_spec")
    form.end()
    return given(build_spec=build_spec, deployment_condition=condition, deployment_spec=deployment_spec)


def _build_spec(form: Form, result: Automated, told: Told) -> dict[str, Any]:
    uri = form.take("git_uri", forms.git_uri)
    token = form.take("git_access_token_secret", forms.secret("token"))
    if isinstance(uri, Noted) and token is None:
        token = Name("secret", "git-credentials")
    if uri is None:
        uri = told.undecided(form.place, f"{form.subject} names no repository.", "write git_uri")
    fields = given(
        git_uri=uri,
        git_branch=unless("main", form.take("git_branch")),
        git_access_token_secret=token,
        git_ssh_token_secret=form.take("git_ssh_token_secret", forms.secret("ssh-privatekey")),
        main_dir=unless("main", form.take("main_dir")),
        dependency_file_path=form.take("dependency_file_path"),
        dependency_required_folders=form.take("dependency_required_folders"),
        base_image=form.take("base_image"),
        resources=_resources(form),
        gpu_compatible=unless(False, form.take("gpu_compatible")),
        env_vars=form.take("env_vars", forms.env_vars(result.model)),
        parameters=form.take("parameters", forms.parameters),
        tags=form.take("tags"),
        assumed_iam_role=form.take("assumed_iam_role"),
        service_account_key_secret_name=form.take("service_account_key_secret_name", forms.secret("key.json")),
        purchase_option=unless("spot", form.take("purchase_option", forms.lower)),
        push_image=unless(True, form.take("push_image")),
        provision_instance_timeout=unless(120, form.take("provision_instance_timeout")),
    )
    form.end()
    return fields


def _resources(form: Form) -> Any:
    value = form.value("resources")
    if value is None:
        # What an automation of the platform builds with; an unnamed size is another one here.
        return {"cpu": 2, "memory": "2Gi"}
    return _sized(value, form.told, f"resources of {form.subject}")


def _sized(value: Value, told: Told, what: str) -> Any:
    match value.data:
        case Made("CpuResources", fields):
            form = Form(fields, value.place, told, what)
            sized = {"cpu": form.take("cpu_fraction", default=2), "memory": form.take("memory", forms.memory, "2Gi")}
            form.end()
            return sized
        case Made("GpuResources", fields):
            form = Form(fields, value.place, told, what)
            return _gpu(form)
        case Made("ClientResources", fields):
            form = Form(fields, value.place, told, what)
            instance = form.take("instance", forms.lower)
            inner = form.value("gpu_resources") or form.value("cpu_resources")
            form.ignore("gpu_resources", "cpu_resources")  # the first that is set counts
            form.end()
            if instance is not None:
                return {"instance": instance}
            return _sized(inner, told, what) if inner is not None else None
    return forms.simple(value, told, what)


def _gpu(form: Form) -> dict[str, Any]:
    fields = given(gpu_type=form.take("gpu_type", forms.upper), gpu_amount=form.take("gpu_amount", forms.nonzero))
    form.end()
    return fields


def _condition(value: Value | None, action: Form) -> Any:
    told, what = action.told, f"deployment_condition of {action.subject}"
    match value.data if value is not None else None:
        case None:
            return None
        case Made("BuildMetric", fields):
            assert value is not None
            form = Form(fields, value.place, told, what)
            limit = form.take("threshold", forms.threshold)
            if limit is None:
                limit = told.undecided(value.place, f"{what} has no threshold.", 'write it: threshold: "0.65"')
            against = {"threshold": limit}
        case Made("DeployedBuildMetric", fields):
            assert value is not None
            form = Form(fields, value.place, told, what)
            variation = form.take("variation", default="default")
            # It must exist here, and only the variations of the whole import tell what it is called.
            against = {"variation": variation}
        case _:
            assert value is not None
            return (
                forms.simple(value, told, what)
                if isinstance(value.data, Unknown | Made)
                else told.undecided(value.place, f"{what} is none of the platform's.", "write it into the result")
            )
    fields_out = given(
        metric_name=form.take("metric_name"), direction=unless("ABOVE", form.take("direction", _direction)), **against
    )
    form.end()
    return fields_out


def _deployment_spec(form: Form, result: Automated, context: Context) -> dict[str, Any]:
    variation = form.text("variation_name") or "default"
    places = [_environment(item, form, context) for item in form.items("environments")]
    result.deploys_to = variation
    result.environments = tuple(place for place in places if isinstance(place, Name))
    if not places:
        result.environments = (context.environment("", form.place),)
    timeout = form.take("deployment_timeout")
    late = form.take("deployment_process_timeout_limit")  # what the documentation calls it
    gpu = form.value("gpu_resources")
    result.deployment = given(
        number_of_http_server_workers=unless(2, form.take("number_of_http_server_workers")),
        http_request_timeout_ms=unless(5000, form.take("http_request_timeout_ms")),
        max_batch_size=unless(1, form.take("max_batch_size")),
        daemon_mode=unless(False, form.take("daemon_mode")),
        custom_iam_role_arn=form.take("custom_iam_role_arn"),
        number_of_pods=unless(2, form.take("number_of_pods")),
        cpu_fraction=unless(2, form.take("cpu_fraction")),
        memory=unless("2Gi", form.take("memory", forms.memory)),
        gpu_resources=_sized(gpu, form.told, f"gpu_resources of {form.subject}") if gpu is not None else None,
        instance=form.take("instance", forms.lower),
        purchase_option=unless("spot", form.take("purchase_option", forms.lower)),
        auto_scale_config=_auto_scale_config(form.value("auto_scale_config"), form),
        env_vars=form.take("env_vars", forms.env_vars(result.model)),
        deployment_timeout=unless(0, timeout if timeout is not None else late),
        service_account_key_secret_name=form.take("service_account_key_secret_name", forms.secret("key.json")),
    )
    form.end()
    return {
        "variation_name": Name("variation", variation, result.model),
        "environments": [*places] if places else list(result.environments),
        **result.deployment,
    }


def _environment(item: Value, form: Form, context: Context) -> Any:
    text = forms.simple(item, form.told, f"an environment of {form.subject}")
    return context.environment(text, item.place) if isinstance(text, str) else text


def _auto_scale_config(value: Value | None, deployment: Form) -> Any:
    if value is None:
        return None
    form = Form.of(
        value, deployment.place, deployment.told, f"auto_scale_config of {deployment.subject}", "AutoScalingConfig"
    )
    if not form.has_any():
        return None
    triggers = []
    for item in form.items("triggers"):
        what = f"a trigger of {form.subject}"
        trigger = Form.of(item, form.place, form.told, what, "AutoScalingPrometheusTrigger")
        query = trigger.form("query_spec", "AutoScaleQuerySpec")
        triggers.append(scaling_trigger(query, trigger))
    return scaling(form, triggers)


def scaling(form: Form, triggers: list[dict[str, Any]]) -> dict[str, Any]:
    """An autoscaling configuration, once its triggers are read."""
    if not triggers:
        lost = form.told.undecided(form.place, f"{form.subject} has no trigger.", "write prometheus_trigger")
    fields = given(
        min_replica_count=form.take("min_replica_count"),
        max_replica_count=form.take("max_replica_count"),
        polling_interval=unless(30, form.take("polling_interval")),
        cool_down_period=unless(300, form.take("cool_down_period")),
        prometheus_trigger=triggers or lost,
    )
    form.end()
    return fields


def scaling_trigger(query: Form, trigger: Form) -> dict[str, Any]:
    """One trigger: what is measured, and at which value it scales."""
    fields = given(
        metric_type=query.take("metric_type", forms.lower),
        aggregation_type=query.take("aggregation_type", forms.lower),
        time_period=query.take("time_period"),
        threshold=trigger.take("threshold"),
        error_code=unless(".*", query.take("error_code")),
    )
    if fields.get("metric_type") == "memory":
        message = f"The threshold of {trigger.subject} is in bytes on the platform, and a percentage of the limit here."
        fields["threshold"] = trigger.told.undecided(trigger.place, message, "write a percentage, such as 80")
    query.end()
    trigger.end()
    return fields


def _batch(form: Form, result: Automated) -> dict[str, Any]:
    told = form.told
    result.predicts_with = "default"
    if form.value("build_id") is not None:
        told.without(form.place, f"build_id of {form.subject} is of the platform: the variation's build is taken.")
    data = form.form("data_specifications", "BatchJobDataSpecifications")
    run = form.form("execution_specifications", "BatchJobExecutionSpecifications")

    def secret(key: str) -> Any:
        return data.take(key, forms.secret("value"))

    fields = {
        "variation": Name("variation", "default", result.model),
        "data_specifications": given(
            source_bucket=data.take("source_bucket"),
            source_folder=data.take("source_folder"),
            input_file_type=data.take("input_file_type", forms.lower),
            destination_bucket=data.take("destination_bucket"),
            destination_folder=data.take("destination_folder"),
            output_file_type=data.take("output_file_type", forms.lower),
            access_token_secret_name=secret("access_token_secret_name"),
            access_secret_secret_name=secret("access_secret_secret_name"),
            session_token_secret_name=secret("session_token_secret_name"),
        ),
        "execution_specifications": given(
            job_timeout=run.take("job_timeout", forms.nonzero),
            task_timeout=run.take("task_timeout", forms.nonzero),
            executors=run.take("executors", forms.nonzero),
            cpu=run.take("cpu", forms.nonzero),
            memory=run.take("memory", forms.memory),
            gpu_type=run.take("gpu_type", forms.upper),
            gpu_amount=run.take("gpu_amount", forms.nonzero),
            custom_iam_role_arn=run.take("custom_iam_role_arn"),
            instance=run.take("instance", forms.lower),
            params=run.take("params", forms.parameters),
        ),
    }
    for part in (data, run, form):
        part.end()
    return {key: value for key, value in fields.items() if value}


# -- notifications ----------------------------------------------------------------------------------------------------

#: Headers whose values our language wants in a Secret (`schemas.automation`).
_SECRET_HEADER = re.compile(r"authorization|token|api-?key|secret", re.IGNORECASE)


def _notification(value: Value | None, result: Automated, told: Told) -> Any:
    what = f"a notification of the automation {result.name.text}"
    match value.data if value is not None else None:
        case None:
            return None
        case Made("SlackNotification", fields):
            assert value is not None
            webhook = Form(fields, value.place, told, what).value("webhook")
            if webhook is None or not isinstance(webhook.data, str):
                return {"slack": {"webhook_secret": forms.simple(webhook or value, told, f"the webhook of {what}")}}
            secret = told.hidden("slack-webhook", webhook.data, "url", webhook.place)
            note = f"put the address of {webhook.place.file}:{webhook.place.line} into this Secret, key url"
            told.changed(
                webhook.place, f"The address of {what} is a secret: it was not copied, a Secret is named for it."
            )
            return {"slack": {"webhook_secret": Noted(secret, note)}}
        case Made("CustomWebhook", fields):
            assert value is not None
            return {"custom_webhook": _webhook(Form(fields, value.place, told, what))}
    assert value is not None
    return (
        forms.simple(value, told, what)
        if isinstance(value.data, Unknown | Made)
        else told.undecided(value.place, f"{what} is none of the platform's.", "write it into the result")
    )


def _webhook(form: Form) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    secrets: dict[str, Any] = {}
    given_headers = form.value("headers")
    if given_headers is not None and isinstance(given_headers.data, dict):
        for name, value in given_headers.data.items():
            if _SECRET_HEADER.search(name) and isinstance(value.data, str):
                base = re.sub(r"[^a-z0-9]+", "-", f"webhook-{name.lower()}").strip("-")
                secret = form.told.hidden(base, f"{base}={value.data}", "value", value.place)
                form.told.changed(
                    value.place, f"The header {name} of {form.subject} was not copied, a Secret is named for it."
                )
                note = f"put the value of {value.place.file}:{value.place.line} into this Secret, key value"
                secrets[name] = Noted(secret, note)
            else:
                headers[name] = forms.as_text(value, form.told, f"the header {name} of {form.subject}")
    elif given_headers is not None:
        headers = forms.simple(given_headers, form.told, f"headers of {form.subject}")
    fields = given(
        url=form.take("url"),
        http_method=unless("GET", form.take("http_method", forms.upper)),
        headers=headers or None,
        header_secrets=secrets or None,
        data=form.take("data", forms.parameters),
    )
    form.end()
    return fields
