"""The commands: each parses, calls one function, prints.

`main` has the table of commands. `options` declares the parameters that several share, `printing` writes text and JSON.
The others are named after their commands, in the order of a month:

1. A ledger: `ledger`, `providers`, `terms`, `models`, `approve`.
2. Training data: `training_data`, `index`, `validate`.
3. Outputs: `outputs`, `compute`, `report`, `explain`.
4. Money: `money`, `close`, `corrections`, `pay`; `month` runs the commands of a whole month.
5. Proofs for others: `statements`, `signing_key`, `head`.
6. `demo`: all of it once.
"""
