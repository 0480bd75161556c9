"""Importers: other people's files in, the event log out. One module a format.

An importer turns its files into batches of columns in file order (`source.Importer`); `run`
validates nothing more and writes them, so that a new format is one small module.
"""
