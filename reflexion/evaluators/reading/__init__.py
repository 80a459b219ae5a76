"""Reads what a reply says: where its answer stands, and which number, option or JSON value that is.

All of it takes linear time and raises nothing on any text: a reply is the work of a model that nobody vouches for.
"""
