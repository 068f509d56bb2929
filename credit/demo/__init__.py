"""`credit demo`: the whole way once, on real text, offline.

Read in this order: `corpus` (data of installed packages), `training` (a tokenizer and a model), `run` (the commands).
"""
