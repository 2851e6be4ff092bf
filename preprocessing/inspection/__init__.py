"""Looking at what the stages made, as a person wants to see it, as JSON, or as one HTML page.

terminal.py    text that cannot harm a terminal; tables; colour where it is wanted
outputs.py     what a path or a configuration names: stage directories, shards, reading them
manifests.py   the summary of an output
documents.py   rows of document shards       tokens.py     rows of token shards
examples.py    rows as the loader makes them, corrupted
statistics.py  figures of all rows by streaming them once      page.py    the HTML page of them
command.py     ``lexmill inspect``
"""
