"""Files to records: logged outputs, training data, providers, rates. Bad input is quarantined with file, line, reason.

Reading order:

1. Files: `streams` hashes one as it is read, `lines` and `json_documents` cut it, `tables` decodes Parquet and Arrow in
   a process of limited memory (`table_process`, by the row groups of `parquet_footer`), and `files` gives all of them
   as rows; `fields` checks their values. `quarantine` keeps the bad records.
2. Logs: every format in `formats` reads `calls`, with texts from `conversations`, from `exchanges` of requests and
   responses by the APIs in `apis`, and from tracers (`traced`, `attributes`). `spans` and `batch_requests` put calls
   together from pieces. `outputs` turns calls into outputs, with `pseudonyms` of users.
3. Training data: `training_files` by `training_forms`, each record with its provider (`training_source`) and what it
   declares about its use (`declarations`), in its fields or in metadata beside it (`croissant`); `training` reads
   them all.
4. Tables: `providers`, `rates`.
"""
