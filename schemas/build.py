"""Builds: a model's code at a commit, made into an artifact."""

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from schemas.base import (
    DnsLabel,
    EnvVars,
    IamRoleArn,
    Image,
    Many,
    Pairs,
    PurchaseOption,
    RepositoryPath,
    ResourceName,
    SecretName,
    SpecModel,
    Text,
    TextMap,
    Unit,
    has_steps,
    refuse,
    shared,
)
from schemas.resources import Resources

#: `repository#folder`. Only these protocols: git would run a program for `ext::`, and read an option from `-x`.
GitUri = Annotated[
    str,
    Field(
        pattern=(
            r"^(https://[A-Za-z0-9.-]+(:[0-9]{1,5})?/|ssh://([A-Za-z0-9_.-]+@)?[A-Za-z0-9.-]+(:[0-9]{1,5})?/"
            r"|[A-Za-z0-9_.-]+@[A-Za-z0-9.-]+:|file:///)[A-Za-z0-9_.~/-]+(#[A-Za-z0-9_./-]+)?$"
        ),
        max_length=2048,
        description="The repository, and after `#` the model's folder in it. https, ssh, or file (embedded only).",
        examples=["https://github.com/acme/models.git#churn", "git@github.com:acme/models.git#churn"],
    ),
]

#: A branch name as `git check-ref-format --branch` has it, and nothing that git would read as an option.
GitBranch = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*(/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*$", max_length=244, examples=["main"]),
]
GitCommit = Annotated[
    str,
    Field(
        pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$",
        description="The full commit id, in lower case.",
        examples=["d670460b4b4aece5915caf5c68d12f560a9fe3e4"],
    ),
]

Parameters = Annotated[Pairs, TextMap(r"^[A-Za-z_][A-Za-z0-9_.-]*$", (("n_estimators", "200"),))]
Tag = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=63, examples=["weekly"])]

#: Fields of the platform that are read, so that definitions move over unchanged, and that nothing here could obey: why,
#: and what to do instead.
NO_EFFECT = {
    "provision_instance_timeout": (
        "a cluster counts one time for all of a build, the wait for a machine included",
        "write timeout_minutes, for both together",
    ),
    "push_image": (
        "no image is made of a build: its artifact goes to the object storage, and is served from there",
        "remove it",
    ),
}

#: What no branch is called although the pattern lets it through.
_NO_BRANCH = re.compile(r"\.lock(/|$)|\.\.")


class BuildSpecification(SpecModel):
    """What is built and how: the platform's build specification, by its own names."""

    git_uri: GitUri
    git_access_token_secret: SecretName | None = None
    """For https: a Secret whose key `token` holds `user:token`."""
    git_ssh_token_secret: SecretName | None = None
    """For ssh: a Secret with the key `ssh-privatekey`."""
    main_dir: RepositoryPath = "main"
    """The model's package inside its folder."""
    dependency_file_path: RepositoryPath | None = None
    """requirements.txt, pyproject.toml or a conda file; none: looked for in the model's folder, then in main_dir."""
    dependency_required_folders: Annotated[Many[RepositoryPath], Field(max_length=50)] = ()
    """Other folders of the repository that the model imports."""
    base_image: Image | None = None
    """The image that the build runs in; none: Trueup's builder for CPU or GPU."""
    resources: Resources = shared(Resources)
    """What the build may use."""
    gpu_compatible: bool = False
    """True: a GPU base image although the build itself uses none."""
    env_vars: EnvVars = ()
    """Seen by build() and the tests, and by the server of this build."""
    parameters: Parameters = ()
    """Recorded with the build, part of what identifies it, and readable by the model's code."""
    tags: Annotated[Many[Tag], Field(max_length=50)] = ()
    """For searching builds. Not part of what identifies one."""
    assumed_iam_role: IamRoleArn | None = None
    """The AWS role of the build."""
    service_account_key_secret_name: SecretName | None = None
    """A Secret whose key `key.json` is a Google Cloud service account key."""
    purchase_option: PurchaseOption = "spot"
    tests: bool = True
    """Run the model's own tests; a failing one fails the build."""
    validate_build_artifact: bool = True
    """Load the artifact and predict once on the schema's example before the build counts as successful."""
    validate_build_artifact_timeout: Annotated[int, Field(ge=1, le=3600), Unit("seconds")] = 120
    """Seconds for loading and predicting."""
    push_image: bool = True
    """No effect here: no image is made of a build. Its artifact goes to the object storage, and is served from it."""
    provision_instance_timeout: Annotated[int, Field(ge=1, le=1440), Unit("minutes")] = 120
    """No effect here: a cluster counts one time for a build, the wait for a machine included. See timeout_minutes."""
    timeout_minutes: Annotated[int, Field(ge=1, le=10_080), Unit("minutes")] = 240
    """Minutes for the build as a whole, waiting for a machine included."""

    @model_validator(mode="after")
    def _repository_is_sound(self) -> Self:
        address, _, folder = self.git_uri.partition("#")
        # What begins with a dot is a step, or belongs to git itself (.git/hooks).
        parts = folder.rstrip("/").split("/")
        if folder and any(not part or part.startswith(".") or ".." in part for part in parts):
            refuse(
                "build/git-uri",
                f"the folder {folder!r} is no folder inside the repository",
                at="git_uri",
                hint="repository#models/churn",
            )
        if has_steps(address):
            refuse("build/git-uri", "the address has a step (. or ..) in it", at="git_uri", hint="write it out")
        if self.git_access_token_secret and self.git_ssh_token_secret:
            refuse(
                "build/two-credentials",
                "git_access_token_secret and git_ssh_token_secret exclude each other",
                at="git_ssh_token_secret",
            )
        if self.git_ssh_token_secret and self.git_uri.startswith(("https:", "file:")):
            refuse(
                "build/credentials",
                "an ssh key is of no use for this git_uri",
                at="git_ssh_token_secret",
                hint="git_access_token_secret",
            )
        if self.git_access_token_secret and not self.git_uri.startswith("https:"):
            refuse("build/credentials", "an access token needs an https git_uri", at="git_access_token_secret")
        return self

    @property
    def repository(self) -> str:
        """`git_uri` without the folder."""
        return self.git_uri.partition("#")[0]

    @property
    def folder(self) -> str:
        """The model's folder in the repository, "" for its root."""
        return self.git_uri.partition("#")[2].strip("/")


def check_branch(branch: str) -> None:
    """What `git check-ref-format` refuses beyond the pattern."""
    if _NO_BRANCH.search(branch) or branch.endswith("."):
        refuse("build/git-branch", f"{branch!r} is no branch name", at="git_branch")


class Build(BuildSpecification):
    """One build of a model, made once."""

    KEYS_FIRST: ClassVar = (
        "name",
        "model",
        "description",
        "environment",
        "git_uri",
        "git_branch",
        "git_commit",
    )

    name: Annotated[ResourceName, Field(examples=["churn-1"])]
    model: ResourceName
    """The model that it is a build of."""
    git_branch: GitBranch | None = None
    """Its newest commit is built, and built anew when it moves. None: main."""
    git_commit: GitCommit | None = None
    """Exactly this commit."""
    environment: DnsLabel | None = None
    """Where it runs; none: the first environment, in order of promotion, of the variations that serve it."""
    description: Text = ""
    """For people."""

    @model_validator(mode="after")
    def _branch_or_commit(self) -> Self:
        if self.git_branch and self.git_commit:
            refuse("build/two-revisions", "git_branch and git_commit exclude each other", at="git_commit")
        if self.git_branch:
            check_branch(self.git_branch)
        return self

    @property
    def branch(self) -> str | None:
        """The branch to build, or None where a commit is pinned."""
        return None if self.git_commit else (self.git_branch or "main")


class AutomationBuildSpecification(BuildSpecification):
    """The build that an automation makes each time."""

    KEYS_FIRST: ClassVar = ("git_uri", "git_branch")

    git_branch: GitBranch = "main"
    """Its newest commit is built."""

    @model_validator(mode="after")
    def _branch(self) -> Self:
        check_branch(self.git_branch)
        return self


FileType = Literal["csv", "feather", "parquet"]
