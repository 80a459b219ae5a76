"""Reuses a reflection where a failure is much like an earlier one."""
