"""Tables: what corruptions look up, made of the training tokens once for all examples sets.

base.py          what the configuration of every table can do
files.py         arrays as Arrow files, mapped when they are read
frequencies.py   how often each id occurs
similar.py       words that may stand for each other, as a file says
cooccurrence.py  or as what stands beside them says

A scheme names the tables that it needs (``Scheme.tables``) and finds their arrays by name in its
context. The examples stage has them made first, and keeps a copy beside the rows, so that an
examples directory is all that training needs.
"""
