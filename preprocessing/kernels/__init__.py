"""Compiled parts of the corruption schemes, imported when a scheme is first used.

A scheme's own file holds its configuration, its worked example and what is done with whole arrays;
the loop over its sequences stands here under the same name.
"""
