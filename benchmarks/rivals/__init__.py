"""Other attribution libraries, each behind the same three steps: build, open, value.

Every module but `ours` runs in an environment that `side_by_side` makes, without this project's dependencies.
"""
