"""Build configurations (`models build -f`) -> ours."""

from __future__ import annotations

from typing import Any

from reconciler.importing import forms
from reconciler.importing.context import Built, Context, Deployed
from reconciler.importing.forms import Form, given, unless
from reconciler.importing.naming import Name
from reconciler.importing.values import Value
from reconciler.importing.writing import Noted
from schemas.problem import quoted

_HINTS = {
    "pre_build": "the model's build() can do it",
    "post_build": "the model's build() can do it",
    "conda": "write dependency_file_path",
    "poetry": "a pyproject.toml is found by itself",
    "virtualenv": "write dependency_file_path",
}


def read(value: Value, context: Context) -> tuple[Built | None, Deployed | None]:
    """A build configuration, and the deployment that it asks for at once (`deploy: true`)."""
    told = context.told
    form = Form.of(value, value.place, told, "the build configuration")
    properties, environment = form.form("build_properties"), form.form("build_env")
    model = properties.text("model_id").lower()
    if not model:
        message = "A build configuration that names no model was left out."
        told.undecided(value.place, message, "write build_properties.model_id")
        return None, None
    subject = f"the build configuration of {model}"
    for part in (form, properties, environment):
        part.subject = subject
    uri, docker = properties.form("model_uri"), environment.form("docker")
    python, remote, step = environment.form("python_env"), environment.form("remote"), form.form("step")
    called = properties.text("build_name")
    build_id = properties.text("build_id")
    address = _address(uri, model, context)
    token = uri.take("git_credentials_secret", forms.secret("token"))
    credentials = uri.value("git_credentials")
    if credentials is not None or (isinstance(address, Noted) and token is None):
        token = Name("secret", "git-credentials")
        told.secrets.setdefault(token, ("token", value.place))
    if credentials is not None:
        told.changed(credentials.place, f"git_credentials of {subject} was not copied, a Secret is named for it.")
    fields = given(
        name=Name("build", called or model),
        model=Name("model", model),
        git_uri=address,
        git_branch=uri.take("git_branch", default="master"),
        git_access_token_secret=token,
        git_ssh_token_secret=uri.take("git_secret_ssh", forms.secret("ssh-privatekey")),
        main_dir=unless("main", uri.take("main_dir")),
        dependency_file_path=python.take("dependency_file_path") or _conda_file(python),
        dependency_required_folders=uri.take("dependency_required_folders"),
        base_image=docker.take("base_image"),
        resources=_resources(remote.form("resources")),
        gpu_compatible=unless(False, properties.take("gpu_compatible")),
        env_vars=docker.take("env_vars", forms.env_vars(model, expands=True)),
        parameters=docker.take("params", forms.parameters),
        tags=properties.take("tags"),
        assumed_iam_role=docker.take("assumed_iam_role_arn"),
        service_account_key_secret_name=docker.take("service_account_key_secret_name", forms.secret("key.json")),
        purchase_option=unless("spot", form.take("purchase_option", forms.lower)),
        tests=unless(True, step.take("tests")),
        validate_build_artifact=unless(True, step.take("validate_build_artifact")),
        validate_build_artifact_timeout=unless(120, step.take("validate_build_artifact_timeout")),
        push_image=unless(True, docker.take("push")),
        provision_instance_timeout=unless(120, form.take("provision_instance_timeout")),
    )
    deployed = _deployed(form, model, context)
    # Where and how the command runs, and what the platform's server calls things, says nothing about the build.
    form.ignore("verbose")
    properties.ignore("branch")
    docker.ignore("cache", "no_cache")
    remote.ignore("is_remote")
    for part in (form, properties, environment, uri, docker, python, remote, step):
        part.end(_HINTS)
    ids = frozenset({build_id}) if build_id else frozenset[str]()
    return Built(Name("build", called or model), model, value.place, fields, ids), deployed


def _address(uri: Form, model: str, context: Context) -> Any:
    address = uri.take("uri", forms.git_uri)
    text = address.value if isinstance(address, Noted) else address
    if model in context.options.git_uris:
        return context.options.git_uris[model]
    if not isinstance(text, str) or "//" in text or text.startswith("git@"):
        if address is None:
            return no_address(uri, model, context, "")
        return address
    return no_address(uri, model, context, f" (the file has {quoted(text)}, which is a folder of some machine)")


def no_address(form: Form, model: str, context: Context, why: str) -> Any:
    """What stands for the repository of a model that nobody has named."""
    message = f"In which repository the code of {model} is, the files do not say{why}."
    return context.told.undecided(form.place, message, f"--git-uri {model}=https://.../repository#folder")


def _conda_file(python: Form) -> Any:
    conda = python.value("conda")
    if conda is None or not isinstance(conda.data, dict):
        return None
    form = Form.of(conda, conda.place, python.told, f"conda of {python.subject}")
    return unless("conda.yml", form.take("conda_file"))  # that one is found by itself


def _resources(form: Form) -> Any:
    fields = given(
        cpu=form.take("cpus", forms.nonzero),
        memory=form.take("memory", forms.memory),
        gpu_type=form.take("gpu_type", forms.upper),
        gpu_amount=form.take("gpu_amount", forms.nonzero),
        instance=form.take("instance", forms.lower),
    )
    form.end()
    return fields or None


def _deployed(form: Form, model: str, context: Context) -> Deployed | None:
    deploy, instance = form.take("deploy"), form.take("deployment_instance", forms.lower)
    if deploy is not True:
        return None
    fields = given(
        http_request_timeout_ms=6000,
        daemon_mode=True,
        number_of_pods=1,
        instance=instance if instance is not None else "tiny",
    )
    return Deployed(model, "default", form.place, (context.environment("", form.place),), fields)
