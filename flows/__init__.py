"""The loop as Prefect flows, and the command line.

Importing this package costs nothing; its modules import Prefect when a flow is asked for.
"""
