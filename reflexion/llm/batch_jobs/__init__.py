"""Requests in jobs that cost half and take up to a day."""
