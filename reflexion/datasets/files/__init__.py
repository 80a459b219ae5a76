"""Rows out of files of every kind: how each is opened, unpacked, decoded and numbered."""
