"""The four steps as Prefect tasks: thin wrappers, a cache policy of our own key, result storage, locks."""

from __future__ import annotations

from reflexion.tasks.server_defaults import prepare

prepare()
