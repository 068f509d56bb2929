"""Actions that can need two people: `actions` says how each is done, `proposals` asks for one and lets another approve.

It lies above `pipeline` and `payments`, because an action can belong to either.
"""
