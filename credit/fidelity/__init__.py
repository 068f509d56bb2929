"""Fidelity: how well attribution predicts what really happens without a provider's data.

Reading order: `recipes` train models; `retraining` plans the trainings without each provider, and on random halves, and
keeps the log-likelihoods of the outputs. `measures` are the predictions, of the index
and of simple baselines. `validation` compares the two by the numbers in `metrics` and writes a `certificate`.

`intervals` says how sure a share is. Three more looks at the data need no retraining: `data_check` tells what an index
would take, `overlap` finds text of several providers, disguised too (`folding`), `membership` text that the model never
learned. `reviews` are the results of these two as the ledger keeps them.
"""
