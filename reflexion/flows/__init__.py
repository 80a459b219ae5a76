"""The loop as Prefect flows, and the command line.

Importing this package is cheap; its modules import Prefect when a flow is asked for. Prefect reads its
settings when it is imported, so they are set here, before any of them.
"""

from reflexion.tasks.server_defaults import prepare

prepare()
