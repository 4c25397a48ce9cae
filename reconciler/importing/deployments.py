"""Deployment configurations (`models deploy -f`) and attached autoscaling -> what a model's variations are made of."""

from __future__ import annotations

from typing import Any

from reconciler.importing import audiences, forms
from reconciler.importing.automations import scaling, scaling_trigger
from reconciler.importing.context import Context, Deployed, Grouped, Route, Scaled
from reconciler.importing.forms import Form, given, unless
from reconciler.importing.naming import Name
from reconciler.importing.values import Value


def read(value: Value, context: Context) -> tuple[Deployed | None, list[Grouped]]:
    """A deployment configuration, and the audiences that it defines on the way."""
    told = context.told
    form = Form.of(value, value.place, told, "the deployment configuration")
    model = form.text("model_id").lower()
    if not model:
        message = "A deployment configuration that names no model was left out."
        told.undecided(value.place, message, "write model_id, which the command was given as --model-id")
        return None, []
    form.subject = f"the deployment configuration of {model}"
    stream = form.value("stream")
    if stream is not None and _is_of_a_stream(stream):
        hint = "a service of your own can read the topic and ask the model"
        told.without(stream.place, f"{form.subject} reads from Kafka, which has no counterpart: left out.", hint)
        return None, []
    batch = form.value("batch")
    realtime = form.form("realtime")
    if batch is not None and not realtime.has_any():
        told.without(batch.place, f"{form.subject} is of batch executions; here its variation is served as well.")
    variation = realtime.text("variation_name") or "default"
    environments = _environments(form, realtime, context)
    routes, order, found = _shares(realtime, context)
    if routes and variation not in {route.variation for route in routes}:
        message = (
            f"{form.subject} leaves {variation} without any share: it is one of an undeployment, and was left out."
        )
        told.without(value.place, message, "import what is deployed now")
        return None, found
    fields = _fields(form, realtime, model)
    result = Deployed(model, variation, value.place, environments, fields, routes=routes, audiences=order)
    result.build_id = form.text("build_id")
    result.protected = realtime.take("variation_protected_state") is True
    for part in (realtime, form):
        part.end()
    return result, found


def attached(value: Value, context: Context) -> Scaled | None:
    """An autoscaling configuration as `models autoscaling attach -f` takes it: `{model_id, variation_name, ...}`."""
    form = Form.of(value, value.place, context.told, "the autoscaling configuration")
    model, variation = form.text("model_id").lower(), form.text("variation_name") or "default"
    if not model:
        message = "An autoscaling configuration that names no model was left out."
        context.told.undecided(value.place, message, "write model_id")
        return None
    form.subject = f"the autoscaling configuration of {model}"
    fields = _auto_scaling(form.form("auto_scaling"))
    form.end()
    return Scaled(model, variation, value.place, fields) if fields is not None else None


def _is_of_a_stream(value: Value) -> bool:
    """Whether servers or topics are named: a file that the command itself has printed has all settings, unset."""
    match value.data:
        case dict(fields):
            named = (fields.get(name) for name in ("bootstrap_servers", "topic", "group", "env_vars"))
            return any(one is not None and not one.says_nothing for one in named) or any(
                _is_of_a_stream(fields[name]) for name in ("kafka", "consumer", "producer") if name in fields
            )
        case _:
            return False


def _environments(form: Form, realtime: Form, context: Context) -> tuple[Name, ...]:
    """Those of `realtime` count, where there are any."""
    general, particular = form.items("environments"), realtime.items("environments")
    names = []
    for item in particular or general:
        text = forms.simple(item, form.told, f"an environment of {form.subject}")
        if isinstance(text, str):
            names.append(context.environment(text, item.place))
    return tuple(dict.fromkeys(names)) or (context.environment("", form.place),)


def _fields(form: Form, realtime: Form, model: str) -> dict[str, Any]:
    """How the variation is served. What the file leaves out has the platform's defaults, where ours differ."""
    resources, advanced = form.form("resources"), form.form("advanced_options")
    instance = resources.take("instance_size", forms.lower)
    gpu = given(
        gpu_type=resources.take("gpu_type", forms.upper), gpu_amount=resources.take("gpu_amount", forms.nonzero)
    )
    cpus, memory = resources.take("cpus"), resources.take("memory", forms.memory, "512Mi")
    if instance is not None:
        gpu, cpus, memory = {}, None, None  # the instance counts
    elif gpu:
        cpus, memory = None, None
    fields = given(
        number_of_http_server_workers=unless(2, realtime.take("workers")),
        http_request_timeout_ms=realtime.take("timeout", default=6000),
        max_batch_size=unless(1, realtime.take("max_batch_size")),
        daemon_mode=unless(False, realtime.take("daemon_mode", default=True)),
        custom_iam_role_arn=advanced.take("iam_role_arn"),
        number_of_pods=resources.take("pods", default=1),
        cpu_fraction=unless(2, cpus),
        memory=memory,
        gpu_resources=gpu or None,
        instance=instance,
        purchase_option=unless("spot", advanced.take("purchase_option", forms.lower)),
        auto_scale_config=_auto_scaling(form.form("auto_scaling")),
        env_vars=realtime.take("env_vars", forms.env_vars(model)),
        deployment_timeout=realtime.take("deployment_timeout", forms.nonzero),
        service_account_key_secret_name=advanced.take("service_account_key_secret_name", forms.secret("key.json")),
    )
    resources.end()
    advanced.end()
    return fields


def _auto_scaling(form: Form) -> dict[str, Any] | None:
    if not form.has_any():
        return None
    holder = form.form("triggers")
    triggers = []
    for item in holder.items("prometheus_trigger"):
        trigger = Form.of(item, form.place, form.told, f"a trigger of {form.subject}")
        triggers.append(scaling_trigger(trigger.form("query_spec"), trigger))
    holder.end()
    return scaling(form, triggers)


# -- who gets how much ------------------------------------------------------------------------------------------------


def _shares(realtime: Form, context: Context) -> tuple[tuple[Route, ...], tuple[Name, ...], list[Grouped]]:
    """The routes of all audiences, the audiences in order, and those that are defined here."""
    routes: list[Route] = []
    order: list[Name] = []
    found: list[Grouped] = []
    for item in realtime.items("audiences"):
        form = Form.of(item, realtime.place, realtime.told, f"an audience of {realtime.subject}")
        identity, name = form.text("id"), form.text("name")
        described = form.value("conditions")
        audience = _audience(identity, name, context)
        if described is not None and isinstance(item.data, dict):
            own = {key: inner for key, inner in item.data.items() if key != "routes"}
            defined = audiences.read(Value(own, item.place), context)
            found += [defined] if defined is not None else []
        form.ignore("description")
        order.append(audience)
        for route in form.items("routes"):
            share = Form.of(route, item.place, realtime.told, f"a route of {audience.text}")
            variation = share.text("variation_name") or "default"
            routes.append(Route(audience, variation, share.take("weight"), share.take("shadow") or False))
            share.end()
        form.end()
    rest = realtime.text("fallback_variation")
    if rest:
        routes.append(Route(None, rest, 100, shadow=False))
    old = realtime.items("variations")
    if old and not routes:
        place = old[0].place
        realtime.told.changed(
            place, f"{realtime.subject} shares by percentages, which the platform of today ignores; they were taken."
        )
        for item in old:
            form = Form.of(item, place, realtime.told, f"a variation of {realtime.subject}")
            traffic = form.form("traffic")
            percentage, shadow = traffic.take("percentage", default=100), traffic.take("shadow") or False
            routes.append(Route(None, form.text("name") or "default", percentage, shadow))
            for part in (traffic, form):
                part.end()
    return tuple(routes), tuple(order), found


def _audience(identity: str, name: str, context: Context) -> Name:
    """What an entry means: the id counts, where it is known; a name is found among the audiences later."""
    if identity in context.options.audiences:
        return Name("audience", context.options.audiences[identity])
    if identity:
        # The number stands for "by its id" until all audiences are read.
        return Name("audience", name or f"audience-{identity[:8]}", model=identity)
    return Name("audience", name or "audience")
