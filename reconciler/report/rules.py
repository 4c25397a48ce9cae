"""What each rule means, and what to do about it: one sentence for people who look an id up.

The message of a problem says what is wrong at its place. This says what the rule is about, wherever it is broken: in
the reference, and in code scanning. A test holds the two lists to the ids that the code can raise. Pure.
"""

from __future__ import annotations

#: What the rules of a family are about, in the order in which they are told.
FAMILIES = {
    "audience": "An audience tells requests apart by their headers, in a way that a gateway can.",
    "automation": "An automation says when something is built, and when it is promoted.",
    "autoscaling": "A variation scales by a metric, and can wake up where it scales to zero.",
    "batch": "A batch execution reads and writes where its environment may.",
    "build": "A build says where its code comes from, so that the same build can be made again.",
    "cluster": "A cluster takes the objects that the specs ask for.",
    "desired": "Each object of a cluster is asked for by one spec.",
    "environment": "An environment names its own namespace, storage and gateway.",
    "format": "`reconcile fmt` never changes what a file means.",
    "import": "`reconcile import` guesses nothing, and drops nothing without a word.",
    "notification": "A notification goes somewhere, and what is secret about it stays in a secret.",
    "policy": "A rule of this organisation, in a file of the repository.",
    "reference": "What a spec refers to exists, and fits.",
    "resources": "What a build or a variation asks for can be had.",
    "rollout": "A canary walks in steps that go up, and its checks can be answered.",
    "routing": "A gateway can carry out what the specs say about traffic.",
    "schema": "A spec has the fields of its kind, with values of their types.",
    "secret": "A secret is named by a spec, and never written into it.",
    "source": "Spec files can be read, and are of a size that can be reviewed.",
    "sql": "A query is one SELECT of one column, and reads nothing that it should not.",
    "threshold": "A threshold is a number in quotes, or a query.",
    "traffic": "Of each audience, all requests go somewhere, and it is clear where.",
    "variation": "A variation serves a build, in the environments that it names.",
    "yaml": "A file is YAML that every reader takes for the same.",
}

#: Rule -> what it means, and what to do.
RULES = {
    "audience/contradiction": (
        "No request can meet all conditions of the audience; make alternatives several audiences, for the "
        "conditions of one must all be true."
    ),
    "audience/empty-range": "The first operand of a range is above the second; put the smaller one first.",
    "audience/negate": "A look at whether a header is there cannot be negated; use the opposite operator.",
    "audience/numeric-operand": (
        "The operator compares numbers, and the operand is none; write decimal digits in quotes."
    ),
    "audience/operand": (
        "The operand does not fit the operator: write a list of different texts for `IN`, none for a look at "
        "whether a header is there, one text for all others."
    ),
    "audience/priority": (
        "A request can be in two audiences of one priority; give each a priority of its own, of which the lowest is "
        "tried first."
    ),
    "audience/regex": (
        "Gateways read RE2, which has no look-around and no back-references; say it without, or as two conditions."
    ),
    "audience/reserved-key": "The header belongs to HTTP, the gateway or Trueup; choose one of your own.",
    "automation/action": (
        "An automation either builds or executes a batch, and a batch has no deployment; keep one side."
    ),
    "automation/condition": (
        "A condition compares with exactly one of `threshold` and `variation`, and decides about a "
        "`deployment_spec`; write what is missing."
    ),
    "automation/cron": "The cron expression cannot be read; write five fields, such as `0 3 * * *`.",
    "automation/path": "A path that a git trigger watches leads out of the repository; write it from the root.",
    "automation/schedule": "A schedule is either `cron` or `interval`; keep one of them.",
    "automation/time-zone": "The time zone is unknown; write a name of the tz database, such as `Europe/Berlin`.",
    "automation/trigger": (
        "An automation has exactly one trigger, and one that executes a batch cannot follow a branch; keep one that "
        "fits."
    ),
    "autoscaling/aggregation": "Percentiles exist of latency only; write `avg`, `max`, `min` or `sum`.",
    "autoscaling/bounds": "`min_replica_count` is above `max_replica_count`; make it the smaller one.",
    "autoscaling/error-code": "`error_code` is no regular expression of status codes; write one such as `5..`.",
    "autoscaling/never-wakes": (
        "With no pods left, the metric would have no samples, and nothing would start one; keep one pod, or scale "
        "by throughput where the gateway counts requests."
    ),
    "autoscaling/no-prometheus": (
        "A metric decides about the number of pods, and nobody answers it; give the environment a `prometheus_url`, "
        "or the deployment `number_of_pods`."
    ),
    "batch/artifact-out-of-reach": (
        "The build's artifact is kept on one machine, which the batch cannot reach; give the environment that "
        "builds an `object_storage`."
    ),
    "batch/folder": (
        "The folder has braces without a date in them, or a part that is no name; write one such as "
        "`scores/{%Y-%m-%d}`."
    ),
    "build/credentials": (
        "The credential does not fit the address: an ssh key is for ssh, an access token for https; name the other "
        "kind."
    ),
    "build/git-branch": "Git takes this for no branch name; write one that it does.",
    "build/git-uri": (
        "The address has steps (`..`) in it, or its folder is not inside the repository; write it as "
        "`repository#models/churn`."
    ),
    "build/local-repository": (
        "The build runs in a cluster, which cannot reach a folder of your machine; write an https or ssh address."
    ),
    "build/two-credentials": "A repository is read with an access token or with an ssh key; keep one of them.",
    "build/two-revisions": "A build is of a branch or of a commit; keep one of them.",
    "cluster/conflict": (
        "Another controller has this field, and Trueup takes none by force; leave it out of the spec, or out of the "
        "other tool."
    ),
    "cluster/failed": (
        "The object was sent to the cluster, and did not become what the spec asks for; the message says what the "
        "cluster or the pods said."
    ),
    "cluster/refused": "The cluster does not take the object; the message says which of its rules is in the way.",
    "desired/two-specs-one-object": "Two specs come to one name of an object in one cluster; rename one of them.",
    "environment/analytics": (
        "An engine lacks what it needs: `athena` a `database`, `sqlalchemy` a `url_secret`; write it."
    ),
    "environment/data-plane": (
        "The embedded data plane is this machine, so it has no context and no kubeconfig; remove it, or write "
        "`type: kubernetes`."
    ),
    "environment/object-storage": (
        "A cluster keeps artifacts where its pods reach them; write `s3://BUCKET/PREFIX`, without steps (`..`)."
    ),
    "environment/promote-after": "An environment cannot come after itself; name another one.",
    "environment/reserved-header": (
        "`sticky_header` is a header of HTTP, the gateway or Trueup; choose one that says who asks."
    ),
    "environment/reserved-namespace": "The namespace belongs to Kubernetes or Trueup; write another one.",
    "environment/toleration": "A toleration contradicts itself by the rules of Kubernetes; do as the message says.",
    "format/left-alone": (
        "The file is left as it is, because it could not be shown that its meaning stays; the message says what is "
        "in the way."
    ),
    "format/unwritable": "The formatted file could not be written; look at its permissions.",
    "import/changed": "Something means the same and is written otherwise here; look at it.",
    "import/no-counterpart": (
        "Something of the other platform does not exist here and was left out; decide whether you need it."
    ),
    "import/python": "The Python file cannot be read without running it; write its values out.",
    "import/renamed": "A name does not have the form of names here, and has become another one; tell those who use it.",
    "import/sql": "The query was written for the other platform's tables; write it for those here.",
    "import/there-already": "A spec of this name exists, and was left as it is; compare the two.",
    "import/unknown": "A value cannot be known from the files; write it where the result says `import:`.",
    "import/yaml": "The file is not YAML, or too large to be read; mend it.",
    "notification/header": "The connection sets this header itself; remove it.",
    "notification/nobody": "A notification names nobody; write `slack`, `pagerduty` or `custom_webhook`.",
    "notification/secret": (
        "A header looks like a credential, and everybody can read specs; put it into a Secret, and name that under "
        "`header_secrets`."
    ),
    "policy/expression": "A rule is not CEL, or asks for more than a rule may; mend the expression.",
    "policy/failed": (
        "A rule has no answer for a spec, mostly because a field is not there; ask `has(spec.field)` first."
    ),
    "policy/not-taken": (
        "The file of rules is broken, so the reconciler in the cluster goes by the last good rules; mend the file, or "
        "take it away to have no rules."
    ),
    "policy/two-of-a-name": "Two rules of the file have one name; rename one of them.",
    "policy/unknown": (
        "The file of rules is broken, and no commit before has good ones, so nothing is changed in the cluster; mend "
        "the file."
    ),
    "prune/all": (
        "All of an environment would be deleted, or all that it has in the specs is gone; approve the id that is "
        "shown, if that is meant."
    ),
    "prune/blind": (
        "The cluster does not show all that is there, so nothing is deleted; look at the account's rights. Nobody "
        "can lift this."
    ),
    "prune/budget": (
        "More than a fifth of an environment would be deleted; approve the id that is shown, if that is meant."
    ),
    "prune/incomplete": (
        "Not all specs could be read and rendered, so nothing is deleted; mend the problems. Nobody can lift this."
    ),
    "prune/rebuilt": (
        "The list of what belongs to the environment was lost and is made anew, so nothing is deleted in this run; "
        "wait for the next. Nobody can lift this."
    ),
    "prune/rewound": (
        "The branch has lost commits, and objects would go with them; approve the id that is shown, if that is meant."
    ),
    "reference/circle": "`promote_after` leads back to where it began; break it at one place.",
    "reference/duplicate-name": "Two specs of a kind have one name; rename or remove one of them.",
    "reference/never-verified": (
        "An environment comes after another one, and the automation deploys nothing to that one, so its builds wait "
        "for ever; add it to the environments that the automation deploys to."
    ),
    "reference/no-effect": (
        "An automation says how its builds are served, and the variation has a spec of its own, which says otherwise "
        "and counts; write it there."
    ),
    "reference/no-environment": "An automation deploys, and there is no environment; define one.",
    "reference/not-served-there": (
        "An automation deploys to an environment that the variation does not name; add it to the variation."
    ),
    "reference/other-model": "The build or automation that is named is of another model; name one of this model.",
    "reference/pinned": (
        "The variation is pinned to a build, so the automation promotes nothing to it meanwhile; that is fine if it "
        "is meant."
    ),
    "reference/served-otherwise": (
        "The variation serves another automation; name this one there, or another variation here."
    ),
    "reference/shared-namespace": (
        "Two environments have one namespace of one cluster, and would take each other's objects for their own; "
        "give each its own."
    ),
    "reference/two-automations": "Two automations deploy to one variation; give each a variation of its own.",
    "reference/unknown-audience": "There is no audience of this name; mend the name, or define it.",
    "reference/unknown-automation": "There is no automation of this name; mend the name, or define it.",
    "reference/unknown-build": "There is no build of this name; mend the name, or define it.",
    "reference/unknown-environment": "There is no environment of this name; mend the name, or define it.",
    "reference/unknown-variation": "The model has no variation of this name; mend the name, or define it.",
    "resources/gpu": "A number of GPUs needs their type; write `gpu_type`.",
    "resources/two-families": "A size is CPU with memory, or GPUs, or an instance; keep one of them.",
    "resources/unknown-instance": (
        "Neither the platform nor the environment has an instance of this name; write one that exists, or add it to "
        "the environment's `defaults.instance_templates`."
    ),
    "rollout/check": "A check asks for exactly one of `metric` and `query`, and has a name of its own; mend it.",
    "rollout/steps": "The weights of a canary's steps rise; write them such as 5, 25, 50.",
    "rollout/timeout": "The steps hold for longer than the canary may take; raise its `timeout`.",
    "routing/audiences-too-large": (
        "The conditions of all audiences of a model do not fit into one ConfigMap; give them shorter lists."
    ),
    "routing/last-variation": (
        "After this change nobody would answer predictions of a model that somebody answers now; approve the id "
        "that is shown, if that is meant."
    ),
    "routing/no-mirror": (
        "A shadow needs a gateway that copies requests; name the `gateway.controller`, for Envoy Gateway and Istio can."
    ),
    "routing/too-many-rules": (
        "The audiences of a model share their requests in more ways than a route has rules; let more of them have "
        "the same shares."
    ),
    "schema/form": "A text does not have the form of its field; the hint has an example.",
    "schema/invalid": "A value is not valid; the message says why.",
    "schema/key": "A key of a mapping does not have the form that keys have there; the hint has an example.",
    "schema/missing-field": "A required field is missing; write it.",
    "schema/no-effect": (
        "The field does nothing here; the message says why, and the hint what does what you may want."
    ),
    "schema/one-of": "A field is written in two of its forms at once, or in none; keep one.",
    "schema/range": "A number is outside of its range; the hint has the bound.",
    "schema/repeated": "A list names something twice; remove one of them.",
    "schema/size": "A text or a list is empty, or too long; the message has the limit.",
    "schema/type": "A value is of another type than its field; the hint says how to write it.",
    "schema/unknown-field": "There is no such field; the hint has the nearest name.",
    "schema/value": "A field takes a few values, and this is none of them; the hint has them.",
    "secret/in-the-open": (
        "A variable looks like a credential, and everybody can read specs; put it into a Secret and write "
        "`secret.NAME`."
    ),
    "source/changed": "A file was written to while it was read; try again.",
    "source/differs-in-case": (
        "Two files differ in nothing but case, and macOS and Windows would keep one of them; rename one."
    ),
    "source/file-name": "A file's name cannot be printed, or is there twice; rename it.",
    "source/large-file": (
        "The repository has a pointer to large file storage (LFS) in place of the file; commit the file itself."
    ),
    "source/no-specs": "There is no spec file; name the folder that has them with `-f`.",
    "source/not-a-file": "What is named is neither a file nor a folder; name one.",
    "source/not-found": "There is no such file or folder; look at the spelling.",
    "source/symbolic-link": "A symbolic link leads nowhere, or out of what is read; put a copy in its place.",
    "source/too-deep": "A folder lies deeper than is read; move it up.",
    "source/too-large": "A file is larger than is read; split it.",
    "source/too-much": "There are more files, or larger ones, than are read at once; name fewer folders.",
    "source/unreadable": "The file cannot be read; look at its permissions.",
    "sql/hidden-table": "`WITH` defines a name that a table of the analytics has; choose another.",
    "sql/no-query": "The text is no query; begin it with `SELECT` or `WITH`.",
    "sql/not-allowed": "A query only reads the tables of the analytics; leave out what does more.",
    "sql/one-column": "A query answers one column; select one value.",
    "sql/one-statement": "A query is one `SELECT`; write it as one, with `WITH` where it needs steps.",
    "sql/parameter-place": "Athena takes parameters in `WHERE` and `JOIN` only; compare with it there.",
    "sql/syntax": "The query cannot be parsed in the dialect of the environment's engine; the message says where.",
    "sql/too-deep": "The query is nested too deeply; take it apart with `WITH`.",
    "sql/too-long": "The query is longer than is read; shorten it.",
    "sql/unknown-column": "The table has no such column; the hint has the nearest name.",
    "sql/unknown-parameter": (
        "There is no such parameter; `:model`, `:environment`, `:build_id` and `:as_of` are bound."
    ),
    "sql/unknown-table": "There is no such table; the reference of the analytics has those that exist.",
    "threshold/form": 'The threshold is neither a number nor a query; write digits in quotes, such as `"0.65"`.',
    "traffic/audience-order": (
        "A request can match two audiences of one priority; give each its own, of which the lowest is tried first."
    ),
    "traffic/no-rest": (
        "Requests that are in no audience are refused; write a share without an audience, unless that is meant."
    ),
    "traffic/nobody": (
        "A model has several variations, and none says whose requests it takes; write `traffic` in one of them."
    ),
    "traffic/shadow-alone": (
        "An audience has a shadow and nobody who answers; give a variation a share without `shadow`."
    ),
    "traffic/two-shadows": "An audience has two shadows; keep one of them.",
    "traffic/weights": "The weights of an audience do not sum to 100; make them.",
    "variation/artifact-out-of-reach": (
        "The build's artifact is kept on one machine, which this environment cannot reach; give the environment "
        "that builds an `object_storage`, or build here."
    ),
    "variation/environments": "An environment is named twice; keep one of them.",
    "variation/override": (
        "An override is for an environment that the variation is not served in, or names a build where an "
        "automation chooses; mend it."
    ),
    "variation/protected": (
        "The plan removes a protected variation or changes its traffic; approve the id that is shown."
    ),
    "variation/source": "A variation serves either a `build` or an `automation`; keep one of them.",
    "yaml/alias": "Aliases (`*name`) are not part of the language; write the value out, or quote the text.",
    "yaml/ambiguous-value": "YAML readers disagree about this value; write it in quotes, or as the hint says.",
    "yaml/anchor": "Anchors (`&name`) are not part of the language; remove it, or quote the text.",
    "yaml/binary": "The file is no text; remove it, or give it another ending.",
    "yaml/complex-key": "A key is a mapping or a list; write text, in quotes where it begins with a bracket.",
    "yaml/control-character": "The character is not allowed in YAML; remove it, or write it escaped in double quotes.",
    "yaml/duplicate-key": "A key appears twice in one mapping; remove one of them.",
    "yaml/integer-too-large": "The integer does not fit into 64 bits; quote it, if it is meant as text.",
    "yaml/key-not-text": "A key is a number, a truth value or nothing; write it in quotes.",
    "yaml/merge-conflict": "Git has left the marks of a conflict; resolve it and remove them.",
    "yaml/merge-key": "Merge keys (`<<`) are not part of the language; write the keys out.",
    "yaml/not-finite": "Infinity and NaN are no values of a spec; write a number, or quote the text.",
    "yaml/not-utf-8": "The file is not UTF-8; save it as such.",
    "yaml/syntax": "The file is not YAML from here on; the message says what was expected.",
    "yaml/tab": "A tab cannot indent YAML; indent with spaces.",
    "yaml/tag": "Tags (`!name`) are not part of the language; remove it, or quote the text.",
    "yaml/too-deep": "The file is nested deeper than is read; specs never are.",
    "yaml/too-large": "The file has more bytes than are read; split it.",
    "yaml/too-many-documents": "The file has more documents than are read; split it.",
    "yaml/too-many-nodes": "The file has more keys and values than are read; split it.",
    "yaml/too-many-problems": "The file has more problems than are shown; mend those, and look again.",
}

#: What a plan may not do without a person, or not at all: rules of its guards. The others are about specs.
LIMITS = tuple(
    rule for rule in RULES if rule.startswith("prune/") or rule in ("routing/last-variation", "variation/protected")
)


def about(rule: str) -> str:
    """What a rule means; of a rule of the organisation's own (`policy/NAME`), what such rules are."""
    return RULES.get(rule) or FAMILIES.get(rule.partition("/")[0], "A rule of the language of specs.")
