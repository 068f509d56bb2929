"""From measures to money, exactly, in integers and Fractions.

Read in this order: `credits` (measures to credits), `apportion` (a pool to shares), `statement_lines`, `payability`
and `waterfall` (earnings to a payout), `statement` (the document that a provider gets), `comparison` (what changed
since the one before); `amounts` and `fx` for money and rates.
"""
