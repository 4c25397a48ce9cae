"""The variations of models, put together from the commands that make and change them.

The platform keeps on its server which variations there are, which build each one serves, and how requests are shared.
A deployment configuration is one command to that server. What several of them come to is put together here, and where
the order of the commands would decide, that is said instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.importing.builds import no_address
from reconciler.importing.context import Automated, Built, Context, Deployed, Found, Route, Scaled, Spec, spec
from reconciler.importing.forms import Form
from reconciler.importing.naming import Name
from reconciler.importing.values import Place
from reconciler.importing.writing import Lost, Noted
from renderers.catalog import Catalog
from schemas.variation import DeploymentSpecification


class Models:
    """The variations of all models, put together from the commands that make and change them."""

    def __init__(self, found: Found, context: Context, existing: Catalog) -> None:
        self.context = context
        self.existing = existing
        self.builds = list(found.builds)
        self.orders: list[tuple[Name, ...]] = []
        self._automations = [automation for automation in found.automations if automation.model]
        self._scaled = found.scaled
        self._deployed: dict[str, dict[tuple[str, Name], Deployed]] = {}
        self._shared: dict[str, dict[Name, list[Deployed]]] = {}
        for deployed in found.deployments:
            self._take(deployed)

    def _take(self, deployed: Deployed) -> None:
        of_model = self._deployed.setdefault(deployed.model, {})
        for environment in deployed.environments:
            key = deployed.variation, environment
            first = of_model.setdefault(key, deployed)
            if first is not deployed and (first.fields, first.build_id) != (deployed.fields, deployed.build_id):
                self.context.told.undecided(
                    deployed.place,
                    f"{first.place} deploys {deployed.model} {deployed.variation} to {environment.text} as well, and "
                    "otherwise: that one was taken.",
                    "import the configuration that was used last",
                )
            if deployed.routes:
                self._shared.setdefault(deployed.model, {}).setdefault(environment, []).append(deployed)

    def variations(self) -> list[Spec]:
        """The variations that need a spec. One that only an automation deploys to is implied by it."""
        result: list[Spec] = []
        predicting = [automation.model for automation in self._automations if automation.predicts_with]
        for model in dict.fromkeys([*self._deployed, *(scaled.model for scaled in self._scaled), *predicting]):
            shares = {place: self._share(model, place, found) for place, found in self._shared.get(model, {}).items()}
            names = self._names(model, shares)
            if names:
                self._complete(model, shares)
            self.orders += [share.audiences for share in shares.values() if share is not None]
            result += [self._variation(model, variation, shares) for variation in names]
        return result

    def _complete(self, model: str, shares: dict[Name, Deployed | None]) -> None:
        """Adds what goes without saying: the only variation of an environment gets everything there."""
        there: dict[Name, dict[str, Place]] = {}
        for (variation, environment), deployed in self._deployed.get(model, {}).items():
            there.setdefault(environment, {})[variation] = deployed.place
        for automation in self._automations:
            if automation.model == model and automation.deploys_to:
                for environment in automation.environments:
                    there.setdefault(environment, {}).setdefault(automation.deploys_to, automation.place)
        for environment, found in there.items():
            if environment in shares:
                continue
            variation, place = next(iter(found.items()))
            if len(found) == 1:
                everybody = (Route(None, variation, 100, shadow=False),)
                shares[environment] = Deployed(model, variation, place, (environment,), {}, routes=everybody)
            else:
                self.context.told.undecided(
                    place,
                    f"How requests to {model} are shared in {environment.text}, none of the files says.",
                    "write traffic in its variations",
                )

    def _share(self, model: str, environment: Name, found: Sequence[Deployed]) -> Deployed | None:
        """The configuration that says how requests are shared now; None where that cannot be known."""
        distinct = {(deployed.routes, deployed.audiences): deployed for deployed in found}
        if len(distinct) == 1:
            return found[0]
        # A configuration lists all variations that there are: one that lists more came later.
        named = {key: _routed(deployed) for key, deployed in distinct.items()}
        last = max(named, key=lambda key: len(named[key]))
        if all(named[key] < named[last] for key in named if key != last):
            return distinct[last]
        places = ", ".join(str(deployed.place) for deployed in distinct.values())
        self.context.told.undecided(
            distinct[last].place,
            f"How requests to {model} are shared in {environment.text} is said differently by {places}.",
            "import the configuration that was used last",
        )
        return None

    def _names(self, model: str, shares: Mapping[Name, Deployed | None]) -> dict[str, None]:
        names = [variation for variation, _ in self._deployed.get(model, {})]
        names += [route.variation for share in shares.values() if share for route in share.routes]
        names += [scaled.variation for scaled in self._scaled if scaled.model == model]
        own = [automation for automation in self._automations if automation.model == model]
        targets = {automation.deploys_to: None for automation in own if automation.deploys_to}
        names += [a.predicts_with for a in own if a.predicts_with and a.predicts_with not in targets]
        if names:  # else each automation implies its own, which takes everybody
            names += targets
        return dict.fromkeys(names)

    def _variation(self, model: str, variation: str, shares: Mapping[Name, Deployed | None]) -> Spec:
        deployed = {place: one for (name, place), one in self._deployed.get(model, {}).items() if name == variation}
        automation = next((a for a in self._automations if (a.model, a.deploys_to) == (model, variation)), None)
        routed = [
            place for place, share in shares.items() if share and variation in {r.variation for r in share.routes}
        ]
        places = [*deployed, *routed, *(automation.environments if automation else ())]
        origin = self._origin(model, variation, deployed, automation, shares)
        environments = list(dict.fromkeys(places)) or [self.context.environment("", origin)]
        fields: dict[str, Any] = {
            "model": Name("model", model),
            "name": Name("variation", variation, model),
            "environments": environments,
        }
        fields |= self._source(model, variation, deployed, automation, origin)
        scaled = next((one for one in reversed(self._scaled) if (one.model, one.variation) == (model, variation)), None)
        states = {
            place: _State(self._settings(deployed, place, automation, scaled), _traffic(variation, shares.get(place)))
            for place in environments
        }
        base = _base(states[environments[0]], states.values())
        if base.deployment:
            fields["deployment"] = base.deployment
        if base.traffic is not None:
            fields["traffic"] = base.traffic
        overrides = {place: changed for place, state in states.items() if (changed := state.beside(base))}
        if overrides:
            fields["environment_overrides"] = overrides
        if any(one.protected for one in deployed.values()):
            fields["protected"] = True
        comments = [f"from {one.place.file}:{one.place.line}" for one in list(deployed.values())[1:]]
        if not deployed and automation is None:
            comments.append("no deployment configuration of it was given: look at its size")
        comments = [comment for comment in dict.fromkeys(comments) if comment != f"from {origin.file}:{origin.line}"]
        return spec("variations", Name("variation", variation, model), origin, fields, *comments)

    def _origin(
        self,
        model: str,
        variation: str,
        deployed: Mapping[Name, Deployed],
        automation: Automated | None,
        shares: Mapping[Name, Deployed | None],
    ) -> Place:
        places = [one.place for one in deployed.values()]
        places += [automation.place] if automation else []
        places += [share.place for share in shares.values() if share and variation in _routed(share)]
        places += [one.place for one in self._scaled if (one.model, one.variation) == (model, variation)]
        places += [one.place for one in self._automations if (one.model, one.predicts_with) == (model, variation)]
        return places[0]

    def _settings(
        self,
        deployed: Mapping[Name, Deployed],
        place: Name,
        automation: Automated | None,
        scaled: Scaled | None,
    ) -> dict[str, Any]:
        one = deployed.get(place) or next(iter(deployed.values()), None)
        settings = dict(one.fields if one else automation.deployment if automation else {})
        if scaled is not None:
            settings["auto_scale_config"] = scaled.fields
        return settings

    def _source(
        self,
        model: str,
        variation: str,
        deployed: Mapping[Name, Deployed],
        automation: Automated | None,
        origin: Place,
    ) -> dict[str, Any]:
        """What the variation serves: what an automation promotes, or a build of the model."""
        told, ids = self.context.told, sorted({one.build_id for one in deployed.values() if one.build_id})
        if automation is not None:
            if deployed:
                told.changed(
                    origin,
                    f"{model} {variation} serves what the automation {automation.name.text} promotes: nothing before "
                    "its first run, and with the size that the variation has.",
                )
            return {"automation": automation.name}
        own = [build for build in self.builds if build.model == model]
        by_id = [build for build in own if build.ids.intersection(ids)]
        there = sorted(name for name, placed in self.existing.builds.items() if placed.spec.model == model)
        if not own and model in self.context.options.git_uris:
            fields = {
                "name": Name("build", model),
                "model": Name("model", model),
                "git_uri": self.context.options.git_uris[model],
            }
            own = [Built(Name("build", model), model, origin, fields)]
            self.builds += own
        if ids:
            told.changed(
                origin,
                f"{model} {variation} serves the newest commit here, where the platform serves its build "
                f"{' or '.join(ids)}: git_commit of the build pins one.",
            )
        chosen = by_id or own
        if len(chosen) == 1:
            return {"build": chosen[0].name}
        if not chosen and len(there) == 1:
            return {"build": there[0]}
        if chosen or there:
            names = ", ".join([*(build.name.text for build in chosen), *there])
            message = f"{model} {variation} serves one of the builds {names}; the files do not say which."
            return {"build": told.undecided(origin, message, "write build: NAME")}
        form = Form({}, origin, told, "")
        return {"build": no_address(form, model, self.context, f", so {variation} has no build to serve")}


@dataclass(frozen=True, slots=True)
class _State:
    """A variation in one environment."""

    deployment: dict[str, Any]
    traffic: list[Any] | None

    def beside(self, base: _State) -> dict[str, Any]:
        """What is different here."""
        changes: dict[str, Any] = {}
        settings = {
            key: self.deployment.get(key, _DEFAULTS.get(key))
            for key in DeploymentSpecification.model_fields
            if self.deployment.get(key, _DEFAULTS.get(key)) != base.deployment.get(key, _DEFAULTS.get(key))
        }
        if settings:
            changes["deployment"] = settings
        if self.traffic != base.traffic:
            changes["traffic"] = self.traffic or Noted([], "it gets nothing here: the files say nothing else")
        return changes


def _base(first: _State, states: Iterable[_State]) -> _State:
    """What is said for all environments: an override can change a key, and not take back one that has no default."""
    said = {key: value for key, value in first.deployment.items() if all(_can_say(state, key) for state in states)}
    return _State(said, first.traffic)


def _can_say(state: _State, key: str) -> bool:
    return key in state.deployment or key in _DEFAULTS


#: What an override writes to take back what the variation says.
_DEFAULTS: dict[str, Any] = {
    "number_of_http_server_workers": 2,
    "http_request_timeout_ms": 5000,
    "max_batch_size": 1,
    "daemon_mode": False,
    "number_of_pods": 2,
    "cpu_fraction": 2,
    "memory": "2Gi",
    "purchase_option": "spot",
    "env_vars": {},
    "deployment_timeout": 0,
}


def _routed(share: Deployed) -> set[str]:
    return {route.variation for route in share.routes}


def _traffic(variation: str, share: Deployed | None) -> list[Any] | None:
    if share is None:
        return None
    routes = [route for route in share.routes if route.variation == variation]
    return [_route(route) for route in routes] or None


def _route(route: Route) -> dict[str, Any]:
    fields: dict[str, Any] = {} if route.audience is None else {"audience": route.audience}
    fields["weight"] = route.weight if route.weight is not None else Lost("no weight is given")
    if route.shadow is not False:
        fields["shadow"] = route.shadow
    return fields
