"""Files to records: logged outputs, training data, providers, rates. Bad input is quarantined with file, line, reason.

Reading order: `lines` and `json_documents` cut a file, `files` gives it as rows; `fields` checks their values. `calls`
is the record that every log format in `formats` is read as. Its texts come from `conversations`, from `exchanges` of
requests and responses by the APIs in `apis`, and from what tracers keep (`traced`, `attributes`); `spans` and
`batch_requests` put calls together that a log tells of in pieces. `outputs`, `training`, `providers` and `rates` are
the readers that others use, `quarantine` keeps the bad records.
"""
