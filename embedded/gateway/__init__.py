"""The gateway of the embedded data plane: Gateway API objects become the configuration of a real Envoy.

world          the objects that matter
hostnames      which hostnames overlap
attachment     pure: which routes belong to which listeners
backends       pure: Services and EndpointSlices -> clusters
policies       pure: Envoy Gateway's policies, as far as they are known
routes         pure: an HTTPRoute -> routes of the proxy
listeners      pure: listeners, and the tables of routes behind them
configuration  pure: all of it together
statuses       pure: what is said about the objects
files          the files in which Envoy finds its configuration
envoy          Envoy as a child process
delivery       bringing a configuration to Envoy in an order in which nothing is lost
controller     the controller that drives all this
"""

from __future__ import annotations

from embedded.gateway.controller import Gateway

__all__ = ["Gateway"]
