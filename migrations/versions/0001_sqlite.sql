CREATE TABLE ingest_file (
  id INTEGER NOT NULL CONSTRAINT ck_ingest_file_id CHECK (id >= 1),
  sha256 TEXT NOT NULL CONSTRAINT ck_ingest_file_sha256 CHECK (length(sha256) = 64),
  name TEXT NOT NULL,
  format TEXT NOT NULL,
  ingested_at TEXT NOT NULL CONSTRAINT ck_ingest_file_ingested_at CHECK (ingested_at LIKE '____-__-__T__:__:__.______Z'),
  accepted INTEGER NOT NULL CONSTRAINT ck_ingest_file_accepted CHECK (accepted >= 0),
  duplicates INTEGER NOT NULL CONSTRAINT ck_ingest_file_duplicates CHECK (duplicates >= 0),
  quarantined INTEGER NOT NULL CONSTRAINT ck_ingest_file_quarantined CHECK (quarantined >= 0),
  CONSTRAINT pk_ingest_file PRIMARY KEY (id)
)
 STRICT

CREATE TABLE model (
  id INTEGER NOT NULL CONSTRAINT ck_model_id CHECK (id >= 1),
  name TEXT NOT NULL CONSTRAINT ck_model_name CHECK (length(name) >= 1),
  CONSTRAINT pk_model PRIMARY KEY (id),
  CONSTRAINT uq_model_name UNIQUE (name)
)
 STRICT

CREATE TABLE period (
  id TEXT NOT NULL CONSTRAINT ck_period_id CHECK (id LIKE '____-__'),
  status TEXT NOT NULL CONSTRAINT ck_period_status CHECK (status IN ('open', 'closed')),
  opened_at TEXT NOT NULL CONSTRAINT ck_period_opened_at CHECK (opened_at LIKE '____-__-__T__:__:__.______Z'),
  closed_at TEXT CONSTRAINT ck_period_closed_at CHECK (closed_at LIKE '____-__-__T__:__:__.______Z'),
  close_policy_json TEXT,
  CONSTRAINT pk_period PRIMARY KEY (id),
  CONSTRAINT ck_period_closed_when CHECK ((status = 'closed') = (closed_at IS NOT NULL)),
  CONSTRAINT ck_period_closed_how CHECK ((status = 'closed') = (close_policy_json IS NOT NULL))
)
 STRICT

CREATE TABLE provider (
  id INTEGER NOT NULL CONSTRAINT ck_provider_id CHECK (id >= 1),
  "key" TEXT NOT NULL CONSTRAINT ck_provider_key CHECK (length(key) >= 1),
  name TEXT NOT NULL,
  kind TEXT NOT NULL CONSTRAINT ck_provider_kind CHECK (kind IN ('provider', 'house')),
  created_at TEXT NOT NULL CONSTRAINT ck_provider_created_at CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_provider PRIMARY KEY (id),
  CONSTRAINT uq_provider_key UNIQUE ("key")
)
 STRICT

CREATE TABLE account (
  id INTEGER NOT NULL CONSTRAINT ck_account_id CHECK (id >= 1),
  "key" TEXT NOT NULL CONSTRAINT ck_account_key CHECK (length(key) >= 1),
  kind TEXT NOT NULL CONSTRAINT ck_account_kind CHECK (kind IN ('credits:issued', 'credits:earned', 'money:external', 'money:pool', 'money:payable', 'money:payout')),
  provider_id INTEGER,
  collection TEXT,
  CONSTRAINT pk_account PRIMARY KEY (id),
  CONSTRAINT uq_account_key UNIQUE ("key"),
  CONSTRAINT fk_account_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id)
)
 STRICT

CREATE INDEX ix_account_provider_id ON account (provider_id)

CREATE TABLE attribution_index (
  id INTEGER NOT NULL CONSTRAINT ck_attribution_index_id CHECK (id >= 1),
  model_id INTEGER NOT NULL,
  fingerprint TEXT NOT NULL CONSTRAINT ck_attribution_index_fingerprint CHECK (length(fingerprint) >= 1),
  manifest_json TEXT NOT NULL,
  registered_at TEXT NOT NULL CONSTRAINT ck_attribution_index_registered_at CHECK (registered_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_attribution_index PRIMARY KEY (id),
  CONSTRAINT uq_attribution_index_fingerprint UNIQUE (fingerprint),
  CONSTRAINT fk_attribution_index_model_id FOREIGN KEY(model_id) REFERENCES model (id)
)
 STRICT

CREATE TABLE contract_term (
  id INTEGER NOT NULL CONSTRAINT ck_contract_term_id CHECK (id >= 1),
  provider_id INTEGER NOT NULL,
  valid_from TEXT NOT NULL CONSTRAINT ck_contract_term_valid_from CHECK (valid_from LIKE '____-__-__'),
  currency TEXT NOT NULL CONSTRAINT ck_contract_term_currency CHECK (currency LIKE '___'),
  minimum_payout_minor INTEGER NOT NULL CONSTRAINT ck_contract_term_minimum_payout_minor CHECK (minimum_payout_minor >= 0),
  created_at TEXT NOT NULL CONSTRAINT ck_contract_term_created_at CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_contract_term PRIMARY KEY (id),
  CONSTRAINT uq_contract_term_provider_id_currency_valid_from UNIQUE (provider_id, currency, valid_from),
  CONSTRAINT fk_contract_term_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id)
)
 STRICT

CREATE TABLE ledger_txn (
  id INTEGER NOT NULL CONSTRAINT ck_ledger_txn_id CHECK (id >= 1),
  seq INTEGER NOT NULL,
  entry_count INTEGER NOT NULL CONSTRAINT ck_ledger_txn_entry_count CHECK (entry_count >= 2),
  kind TEXT NOT NULL CONSTRAINT ck_ledger_txn_kind CHECK (length(kind) >= 1),
  period_id TEXT NOT NULL,
  idempotency_key TEXT NOT NULL CONSTRAINT ck_ledger_txn_idempotency_key CHECK (length(idempotency_key) >= 1),
  input_sha256 TEXT NOT NULL CONSTRAINT ck_ledger_txn_input_sha256 CHECK (length(input_sha256) = 64),
  effective_on TEXT NOT NULL CONSTRAINT ck_ledger_txn_effective_on CHECK (effective_on LIKE '____-__-__'),
  recorded_at TEXT NOT NULL CONSTRAINT ck_ledger_txn_recorded_at CHECK (recorded_at LIKE '____-__-__T__:__:__.______Z'),
  reverses_txn_id INTEGER,
  memo TEXT NOT NULL,
  details_json TEXT NOT NULL,
  prev_hash TEXT NOT NULL CONSTRAINT ck_ledger_txn_prev_hash CHECK (length(prev_hash) = 64),
  hash TEXT NOT NULL CONSTRAINT ck_ledger_txn_hash CHECK (length(hash) = 64),
  CONSTRAINT pk_ledger_txn PRIMARY KEY (id),
  CONSTRAINT ck_ledger_txn_id_is_seq CHECK (id = seq),
  CONSTRAINT ck_ledger_txn_reverses_earlier CHECK (reverses_txn_id < id),
  CONSTRAINT uq_ledger_txn_seq UNIQUE (seq),
  CONSTRAINT uq_ledger_txn_idempotency_key UNIQUE (idempotency_key),
  CONSTRAINT uq_ledger_txn_reverses_txn_id UNIQUE (reverses_txn_id),
  CONSTRAINT uq_ledger_txn_prev_hash UNIQUE (prev_hash),
  CONSTRAINT uq_ledger_txn_hash UNIQUE (hash),
  CONSTRAINT uq_ledger_txn_id_entry_count UNIQUE (id, entry_count),
  CONSTRAINT fk_ledger_txn_period_id FOREIGN KEY(period_id) REFERENCES period (id),
  CONSTRAINT fk_ledger_txn_reverses_txn_id FOREIGN KEY(reverses_txn_id) REFERENCES ledger_txn (id)
)
 STRICT

CREATE INDEX ix_ledger_txn_period_id ON ledger_txn (period_id)

CREATE TABLE output (
  id INTEGER NOT NULL CONSTRAINT ck_output_id CHECK (id >= 1),
  source TEXT NOT NULL,
  external_id TEXT NOT NULL CONSTRAINT ck_output_external_id CHECK (length(external_id) >= 1),
  model_id INTEGER NOT NULL,
  ingest_file_id INTEGER NOT NULL,
  occurred_at TEXT NOT NULL CONSTRAINT ck_output_occurred_at CHECK (occurred_at LIKE '____-__-__T__:__:__.______Z'),
  prompt TEXT NOT NULL,
  messages_json TEXT,
  completion TEXT NOT NULL,
  weight_micro INTEGER NOT NULL CONSTRAINT ck_output_weight_micro CHECK (weight_micro >= 0),
  content_sha256 TEXT NOT NULL CONSTRAINT ck_output_content_sha256 CHECK (length(content_sha256) = 64),
  CONSTRAINT pk_output PRIMARY KEY (id),
  CONSTRAINT uq_output_source_external_id UNIQUE (source, external_id),
  CONSTRAINT fk_output_model_id FOREIGN KEY(model_id) REFERENCES model (id),
  CONSTRAINT fk_output_ingest_file_id FOREIGN KEY(ingest_file_id) REFERENCES ingest_file (id) DEFERRABLE INITIALLY DEFERRED
)
 STRICT

CREATE INDEX ix_output_model_id_id ON output (model_id, id)

CREATE INDEX ix_output_occurred_at ON output (occurred_at)

CREATE TABLE statement (
  id INTEGER NOT NULL CONSTRAINT ck_statement_id CHECK (id >= 1),
  period_id TEXT NOT NULL,
  provider_id INTEGER NOT NULL,
  version INTEGER NOT NULL CONSTRAINT ck_statement_version CHECK (version >= 1),
  sha256 TEXT NOT NULL CONSTRAINT ck_statement_sha256 CHECK (length(sha256) = 64),
  body_json TEXT NOT NULL,
  created_at TEXT NOT NULL CONSTRAINT ck_statement_created_at CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_statement PRIMARY KEY (id),
  CONSTRAINT uq_statement_period_id_provider_id_version UNIQUE (period_id, provider_id, version),
  CONSTRAINT fk_statement_period_id FOREIGN KEY(period_id) REFERENCES period (id),
  CONSTRAINT fk_statement_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id)
)
 STRICT

CREATE TABLE compute_run (
  id INTEGER NOT NULL CONSTRAINT ck_compute_run_id CHECK (id >= 1),
  fingerprint TEXT NOT NULL CONSTRAINT ck_compute_run_fingerprint CHECK (length(fingerprint) >= 1),
  index_id INTEGER NOT NULL,
  policy_json TEXT NOT NULL,
  software_version TEXT NOT NULL,
  created_at TEXT NOT NULL CONSTRAINT ck_compute_run_created_at CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_compute_run PRIMARY KEY (id),
  CONSTRAINT uq_compute_run_fingerprint UNIQUE (fingerprint),
  CONSTRAINT fk_compute_run_index_id FOREIGN KEY(index_id) REFERENCES attribution_index (id)
)
 STRICT

CREATE TABLE index_location (
  id INTEGER NOT NULL CONSTRAINT ck_index_location_id CHECK (id >= 1),
  index_id INTEGER NOT NULL,
  path TEXT NOT NULL CONSTRAINT ck_index_location_path CHECK (length(path) >= 1),
  registered_at TEXT NOT NULL CONSTRAINT ck_index_location_registered_at CHECK (registered_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_index_location PRIMARY KEY (id),
  CONSTRAINT fk_index_location_index_id FOREIGN KEY(index_id) REFERENCES attribution_index (id)
)
 STRICT

CREATE INDEX ix_index_location_index_id ON index_location (index_id)

CREATE TABLE ledger_entry (
  txn_id INTEGER NOT NULL,
  line_no INTEGER NOT NULL,
  entry_count INTEGER NOT NULL,
  account_id INTEGER NOT NULL,
  commodity TEXT NOT NULL CONSTRAINT ck_ledger_entry_commodity CHECK (length(commodity) >= 1),
  amount INTEGER NOT NULL,
  CONSTRAINT pk_ledger_entry PRIMARY KEY (txn_id, line_no),
  CONSTRAINT fk_ledger_entry_txn_id_entry_count FOREIGN KEY(txn_id, entry_count) REFERENCES ledger_txn (id, entry_count) DEFERRABLE INITIALLY DEFERRED,
  CONSTRAINT ck_ledger_entry_line_no CHECK (line_no BETWEEN 1 AND entry_count),
  CONSTRAINT ck_ledger_entry_amount CHECK (amount <> 0 AND amount >= -9223372036854775807),
  CONSTRAINT fk_ledger_entry_account_id FOREIGN KEY(account_id) REFERENCES account (id)
)
 WITHOUT ROWID,
 STRICT

CREATE INDEX ix_ledger_entry_account_id ON ledger_entry (account_id)

CREATE TABLE payout (
  id INTEGER NOT NULL CONSTRAINT ck_payout_id CHECK (id >= 1),
  period_id TEXT NOT NULL,
  provider_id INTEGER NOT NULL,
  currency TEXT NOT NULL CONSTRAINT ck_payout_currency CHECK (currency LIKE '___'),
  amount_minor INTEGER NOT NULL CONSTRAINT ck_payout_amount_minor CHECK (amount_minor > 0),
  status TEXT NOT NULL CONSTRAINT ck_payout_status CHECK (status IN ('pending', 'exported', 'paid', 'failed')),
  txn_id INTEGER NOT NULL,
  CONSTRAINT pk_payout PRIMARY KEY (id),
  CONSTRAINT uq_payout_period_id_provider_id_currency UNIQUE (period_id, provider_id, currency),
  CONSTRAINT fk_payout_period_id FOREIGN KEY(period_id) REFERENCES period (id),
  CONSTRAINT fk_payout_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id),
  CONSTRAINT fk_payout_txn_id FOREIGN KEY(txn_id) REFERENCES ledger_txn (id)
)
 STRICT

CREATE TABLE pool (
  id INTEGER NOT NULL CONSTRAINT ck_pool_id CHECK (id >= 1),
  period_id TEXT NOT NULL,
  currency TEXT NOT NULL CONSTRAINT ck_pool_currency CHECK (currency LIKE '___'),
  reference TEXT NOT NULL CONSTRAINT ck_pool_reference CHECK (length(reference) >= 1),
  gross_minor INTEGER NOT NULL CONSTRAINT ck_pool_gross_minor CHECK (gross_minor >= 0),
  deductions_minor INTEGER NOT NULL CONSTRAINT ck_pool_deductions_minor CHECK (deductions_minor >= 0),
  net_minor INTEGER NOT NULL CONSTRAINT ck_pool_net_minor CHECK (net_minor >= 0),
  txn_id INTEGER,
  CONSTRAINT pk_pool PRIMARY KEY (id),
  CONSTRAINT ck_pool_net CHECK (net_minor = gross_minor - deductions_minor),
  CONSTRAINT ck_pool_posted CHECK ((txn_id IS NULL) = (net_minor = 0)),
  CONSTRAINT uq_pool_period_id_currency_reference UNIQUE (period_id, currency, reference),
  CONSTRAINT fk_pool_period_id FOREIGN KEY(period_id) REFERENCES period (id),
  CONSTRAINT fk_pool_txn_id FOREIGN KEY(txn_id) REFERENCES ledger_txn (id)
)
 STRICT

CREATE TABLE allocation (
  id INTEGER NOT NULL CONSTRAINT ck_allocation_id CHECK (id >= 1),
  period_id TEXT NOT NULL,
  pool_id INTEGER NOT NULL,
  provider_id INTEGER NOT NULL,
  credit_micro INTEGER NOT NULL CONSTRAINT ck_allocation_credit_micro CHECK (credit_micro >= 0),
  total_credit_micro INTEGER NOT NULL CONSTRAINT ck_allocation_total_credit_micro CHECK (total_credit_micro >= 0),
  amount_minor INTEGER NOT NULL CONSTRAINT ck_allocation_amount_minor CHECK (amount_minor >= 0),
  txn_id INTEGER,
  CONSTRAINT pk_allocation PRIMARY KEY (id),
  CONSTRAINT ck_allocation_share CHECK (credit_micro <= total_credit_micro),
  CONSTRAINT ck_allocation_posted CHECK ((txn_id IS NULL) = (amount_minor = 0)),
  CONSTRAINT uq_allocation_pool_id_provider_id UNIQUE (pool_id, provider_id),
  CONSTRAINT fk_allocation_period_id FOREIGN KEY(period_id) REFERENCES period (id),
  CONSTRAINT fk_allocation_pool_id FOREIGN KEY(pool_id) REFERENCES pool (id),
  CONSTRAINT fk_allocation_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id),
  CONSTRAINT fk_allocation_txn_id FOREIGN KEY(txn_id) REFERENCES ledger_txn (id)
)
 STRICT

CREATE INDEX ix_allocation_period_id ON allocation (period_id)

CREATE TABLE score_book (
  id INTEGER NOT NULL CONSTRAINT ck_score_book_id CHECK (id >= 1),
  sha256 TEXT NOT NULL CONSTRAINT ck_score_book_sha256 CHECK (length(sha256) = 64),
  compute_run_id INTEGER NOT NULL,
  output_count INTEGER NOT NULL CONSTRAINT ck_score_book_output_count CHECK (output_count >= 0),
  row_count INTEGER NOT NULL CONSTRAINT ck_score_book_row_count CHECK (row_count >= 0),
  byte_count INTEGER NOT NULL CONSTRAINT ck_score_book_byte_count CHECK (byte_count >= 0),
  registered_at TEXT NOT NULL CONSTRAINT ck_score_book_registered_at CHECK (registered_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_score_book PRIMARY KEY (id),
  CONSTRAINT uq_score_book_sha256 UNIQUE (sha256),
  CONSTRAINT fk_score_book_compute_run_id FOREIGN KEY(compute_run_id) REFERENCES compute_run (id)
)
 STRICT

CREATE TABLE valuation (
  output_id INTEGER NOT NULL,
  index_id INTEGER NOT NULL,
  score_book_id INTEGER NOT NULL,
  CONSTRAINT pk_valuation PRIMARY KEY (output_id, index_id),
  CONSTRAINT fk_valuation_output_id FOREIGN KEY(output_id) REFERENCES output (id),
  CONSTRAINT fk_valuation_index_id FOREIGN KEY(index_id) REFERENCES attribution_index (id),
  CONSTRAINT fk_valuation_score_book_id FOREIGN KEY(score_book_id) REFERENCES score_book (id)
)
 WITHOUT ROWID,
 STRICT

CREATE INDEX ix_valuation_score_book_id ON valuation (score_book_id)

CREATE TRIGGER account_delete BEFORE DELETE ON account
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: no row of account may be deleted');
END

CREATE TRIGGER account_insert BEFORE INSERT ON account
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: this row of account exists already')
    WHERE EXISTS (SELECT 1 FROM account WHERE id = NEW.id) OR EXISTS (SELECT 1 FROM account WHERE key = NEW.key);
END

CREATE TRIGGER account_update BEFORE UPDATE ON account
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: account is append-only: no row may be changed');
END

CREATE TRIGGER allocation_delete BEFORE DELETE ON allocation
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: no row of allocation may be deleted');
END

CREATE TRIGGER allocation_insert BEFORE INSERT ON allocation
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: the period is closed')
    WHERE EXISTS (SELECT 1 FROM period WHERE id = NEW.period_id AND status = 'closed');
  SELECT RAISE(ABORT, 'credit refuses: this row of allocation exists already')
    WHERE EXISTS (SELECT 1 FROM allocation WHERE id = NEW.id) OR EXISTS (SELECT 1 FROM allocation WHERE pool_id = NEW.pool_id AND provider_id = NEW.provider_id);
END

CREATE TRIGGER allocation_update BEFORE UPDATE ON allocation
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: allocation is append-only: no row may be changed');
END

CREATE TRIGGER attribution_index_delete BEFORE DELETE ON attribution_index
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: no row of attribution_index may be deleted');
END

CREATE TRIGGER attribution_index_insert BEFORE INSERT ON attribution_index
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: this row of attribution_index exists already')
    WHERE EXISTS (SELECT 1 FROM attribution_index WHERE id = NEW.id) OR EXISTS (SELECT 1 FROM attribution_index WHERE fingerprint = NEW.fingerprint);
END

CREATE TRIGGER attribution_index_update BEFORE UPDATE ON attribution_index
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: attribution_index is append-only: no row may be changed');
END

CREATE TRIGGER compute_run_delete BEFORE DELETE ON compute_run
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: no row of compute_run may be deleted');
END

CREATE TRIGGER compute_run_insert BEFORE INSERT ON compute_run
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: this row of compute_run exists already')
    WHERE EXISTS (SELECT 1 FROM compute_run WHERE id = NEW.id) OR EXISTS (SELECT 1 FROM compute_run WHERE fingerprint = NEW.fingerprint);
END

CREATE TRIGGER compute_run_update BEFORE UPDATE ON compute_run
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: compute_run is append-only: no row may be changed');
END

CREATE TRIGGER contract_term_delete BEFORE DELETE ON contract_term
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: no row of contract_term may be deleted');
END

CREATE TRIGGER contract_term_insert BEFORE INSERT ON contract_term
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: this row of contract_term exists already')
    WHERE EXISTS (SELECT 1 FROM contract_term WHERE id = NEW.id) OR EXISTS (SELECT 1 FROM contract_term WHERE provider_id = NEW.provider_id AND currency = NEW.currency AND valid_from = NEW.valid_from);
END

CREATE TRIGGER contract_term_update BEFORE UPDATE ON contract_term
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: contract_term is append-only: no row may be changed');
END

CREATE TRIGGER index_location_delete BEFORE DELETE ON index_location
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: no row of index_location may be deleted');
END

CREATE TRIGGER index_location_insert BEFORE INSERT ON index_location
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: this row of index_location exists already')
    WHERE EXISTS (SELECT 1 FROM index_location WHERE id = NEW.id);
END

CREATE TRIGGER index_location_update BEFORE UPDATE ON index_location
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: index_location is append-only: no row may be changed');
END

CREATE TRIGGER ingest_file_delete BEFORE DELETE ON ingest_file
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: no row of ingest_file may be deleted');
END

CREATE TRIGGER ingest_file_insert BEFORE INSERT ON ingest_file
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: this row of ingest_file exists already')
    WHERE EXISTS (SELECT 1 FROM ingest_file WHERE id = NEW.id);
END

CREATE TRIGGER ingest_file_update BEFORE UPDATE ON ingest_file
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: ingest_file is append-only: no row may be changed');
END

CREATE TRIGGER ledger_entry_delete BEFORE DELETE ON ledger_entry
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: no row of ledger_entry may be deleted');
END

CREATE TRIGGER ledger_entry_insert BEFORE INSERT ON ledger_entry
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: a late entry: the transaction is complete')
    WHERE EXISTS (SELECT 1 FROM ledger_txn WHERE id = NEW.txn_id);
  SELECT RAISE(ABORT, 'credit refuses: this row of ledger_entry exists already')
    WHERE EXISTS (SELECT 1 FROM ledger_entry WHERE txn_id = NEW.txn_id AND line_no = NEW.line_no);
END

CREATE TRIGGER ledger_entry_update BEFORE UPDATE ON ledger_entry
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: ledger_entry is append-only: no row may be changed');
END

CREATE TRIGGER ledger_txn_delete BEFORE DELETE ON ledger_txn
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: no row of ledger_txn may be deleted');
END

CREATE TRIGGER ledger_txn_insert BEFORE INSERT ON ledger_txn
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: the period is closed')
    WHERE EXISTS (SELECT 1 FROM period WHERE id = NEW.period_id AND status = 'closed');
  SELECT RAISE(ABORT, 'credit refuses: the number of entries is not entry_count')
    WHERE (SELECT count(*) FROM ledger_entry WHERE txn_id = NEW.id) <> NEW.entry_count;
  SELECT RAISE(ABORT, 'credit refuses: the entries do not sum to zero in every commodity')
    WHERE EXISTS (SELECT 1 FROM ledger_entry WHERE txn_id = NEW.id GROUP BY commodity HAVING sum(amount / 4294967296) + sum(amount % 4294967296) / 4294967296 <> 0 OR sum(amount % 4294967296) % 4294967296 <> 0);
  SELECT RAISE(ABORT, 'credit refuses: seq does not follow the last transaction')
    WHERE NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM ledger_txn);
  SELECT RAISE(ABORT, 'credit refuses: prev_hash is not the hash of the last transaction')
    WHERE NEW.prev_hash <> coalesce((SELECT hash FROM ledger_txn ORDER BY seq DESC LIMIT 1), '0000000000000000000000000000000000000000000000000000000000000000');
  SELECT RAISE(ABORT, 'credit refuses: there is no such transaction to reverse')
    WHERE NEW.reverses_txn_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM ledger_txn WHERE id = NEW.reverses_txn_id);
  SELECT RAISE(ABORT, 'credit refuses: the transaction has been reversed before')
    WHERE NEW.reverses_txn_id IS NOT NULL AND EXISTS (SELECT 1 FROM ledger_txn WHERE reverses_txn_id = NEW.reverses_txn_id);
  SELECT RAISE(ABORT, 'credit refuses: a reversal must negate every entry of what it reverses')
    WHERE NEW.reverses_txn_id IS NOT NULL AND (NEW.entry_count <> (SELECT entry_count FROM ledger_txn WHERE id = NEW.reverses_txn_id) OR EXISTS (SELECT 1 FROM ledger_entry AS n JOIN ledger_entry AS o ON o.txn_id = NEW.reverses_txn_id AND o.line_no = n.line_no WHERE n.txn_id = NEW.id AND (n.account_id <> o.account_id OR n.commodity <> o.commodity OR n.amount <> -o.amount)));
  SELECT RAISE(ABORT, 'credit refuses: this row of ledger_txn exists already')
    WHERE EXISTS (SELECT 1 FROM ledger_txn WHERE id = NEW.id) OR EXISTS (SELECT 1 FROM ledger_txn WHERE hash = NEW.hash) OR EXISTS (SELECT 1 FROM ledger_txn WHERE idempotency_key = NEW.idempotency_key) OR EXISTS (SELECT 1 FROM ledger_txn WHERE prev_hash = NEW.prev_hash) OR EXISTS (SELECT 1 FROM ledger_txn WHERE reverses_txn_id = NEW.reverses_txn_id) OR EXISTS (SELECT 1 FROM ledger_txn WHERE seq = NEW.seq);
END

CREATE TRIGGER ledger_txn_update BEFORE UPDATE ON ledger_txn
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: ledger_txn is append-only: no row may be changed');
END

CREATE TRIGGER model_delete BEFORE DELETE ON model
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: no row of model may be deleted');
END

CREATE TRIGGER model_insert BEFORE INSERT ON model
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: this row of model exists already')
    WHERE EXISTS (SELECT 1 FROM model WHERE id = NEW.id) OR EXISTS (SELECT 1 FROM model WHERE name = NEW.name);
END

CREATE TRIGGER model_update BEFORE UPDATE ON model
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: model is append-only: no row may be changed');
END

CREATE TRIGGER output_delete BEFORE DELETE ON output
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: no row of output may be deleted');
END

CREATE TRIGGER output_insert BEFORE INSERT ON output
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: this row of output exists already')
    WHERE EXISTS (SELECT 1 FROM output WHERE id = NEW.id) OR EXISTS (SELECT 1 FROM output WHERE source = NEW.source AND external_id = NEW.external_id);
END

CREATE TRIGGER output_update BEFORE UPDATE ON output
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: output is append-only: no row may be changed');
END

CREATE TRIGGER payout_delete BEFORE DELETE ON payout
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: no row of payout may be deleted');
END

CREATE TRIGGER payout_insert BEFORE INSERT ON payout
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: this row of payout exists already')
    WHERE EXISTS (SELECT 1 FROM payout WHERE id = NEW.id) OR EXISTS (SELECT 1 FROM payout WHERE period_id = NEW.period_id AND provider_id = NEW.provider_id AND currency = NEW.currency);
END

CREATE TRIGGER payout_update BEFORE UPDATE ON payout
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: only the status of a payout may change')
    WHERE NEW.id <> OLD.id OR NEW.period_id <> OLD.period_id OR NEW.provider_id <> OLD.provider_id OR NEW.currency <> OLD.currency OR NEW.amount_minor <> OLD.amount_minor OR NEW.txn_id <> OLD.txn_id;
  SELECT RAISE(ABORT, 'credit refuses: a payout goes from pending to exported, from exported to paid or failed, from failed to pending')
    WHERE NOT (OLD.status = 'pending' AND NEW.status = 'exported') AND NOT (OLD.status = 'exported' AND NEW.status = 'paid') AND NOT (OLD.status = 'exported' AND NEW.status = 'failed') AND NOT (OLD.status = 'failed' AND NEW.status = 'pending');
END

CREATE TRIGGER period_delete BEFORE DELETE ON period
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: no row of period may be deleted');
END

CREATE TRIGGER period_insert BEFORE INSERT ON period
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: a period starts open')
    WHERE NEW.status <> 'open';
  SELECT RAISE(ABORT, 'credit refuses: this row of period exists already')
    WHERE EXISTS (SELECT 1 FROM period WHERE id = NEW.id);
END

CREATE TRIGGER period_update BEFORE UPDATE ON period
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: the period is closed: it stays closed, as it was closed')
    WHERE OLD.status = 'closed';
  SELECT RAISE(ABORT, 'credit refuses: the only change to a period is to close it')
    WHERE NEW.status <> 'closed' OR NEW.id <> OLD.id OR NEW.opened_at <> OLD.opened_at;
END

CREATE TRIGGER pool_delete BEFORE DELETE ON pool
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: no row of pool may be deleted');
END

CREATE TRIGGER pool_insert BEFORE INSERT ON pool
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: the period is closed')
    WHERE EXISTS (SELECT 1 FROM period WHERE id = NEW.period_id AND status = 'closed');
  SELECT RAISE(ABORT, 'credit refuses: this row of pool exists already')
    WHERE EXISTS (SELECT 1 FROM pool WHERE id = NEW.id) OR EXISTS (SELECT 1 FROM pool WHERE period_id = NEW.period_id AND currency = NEW.currency AND reference = NEW.reference);
END

CREATE TRIGGER pool_update BEFORE UPDATE ON pool
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: pool is append-only: no row may be changed');
END

CREATE TRIGGER provider_delete BEFORE DELETE ON provider
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: no row of provider may be deleted');
END

CREATE TRIGGER provider_insert BEFORE INSERT ON provider
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: this row of provider exists already')
    WHERE EXISTS (SELECT 1 FROM provider WHERE id = NEW.id) OR EXISTS (SELECT 1 FROM provider WHERE key = NEW.key);
END

CREATE TRIGGER provider_update BEFORE UPDATE ON provider
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: a provider''s id, key and created_at stay as they are')
    WHERE NEW.id <> OLD.id OR NEW.key <> OLD.key OR NEW.created_at <> OLD.created_at;
  SELECT RAISE(ABORT, 'credit refuses: a provider that has been credited stays of its kind')
    WHERE NEW.kind <> OLD.kind AND EXISTS (SELECT 1 FROM account WHERE provider_id = OLD.id);
END

CREATE TRIGGER score_book_delete BEFORE DELETE ON score_book
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: no row of score_book may be deleted');
END

CREATE TRIGGER score_book_insert BEFORE INSERT ON score_book
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: this row of score_book exists already')
    WHERE EXISTS (SELECT 1 FROM score_book WHERE id = NEW.id) OR EXISTS (SELECT 1 FROM score_book WHERE sha256 = NEW.sha256);
END

CREATE TRIGGER score_book_update BEFORE UPDATE ON score_book
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: score_book is append-only: no row may be changed');
END

CREATE TRIGGER statement_delete BEFORE DELETE ON statement
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: no row of statement may be deleted');
END

CREATE TRIGGER statement_insert BEFORE INSERT ON statement
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: this row of statement exists already')
    WHERE EXISTS (SELECT 1 FROM statement WHERE id = NEW.id) OR EXISTS (SELECT 1 FROM statement WHERE period_id = NEW.period_id AND provider_id = NEW.provider_id AND version = NEW.version);
END

CREATE TRIGGER statement_update BEFORE UPDATE ON statement
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: statement is append-only: no row may be changed');
END

CREATE TRIGGER valuation_delete BEFORE DELETE ON valuation
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: no row of valuation may be deleted');
END

CREATE TRIGGER valuation_insert BEFORE INSERT ON valuation
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: this row of valuation exists already')
    WHERE EXISTS (SELECT 1 FROM valuation WHERE output_id = NEW.output_id AND index_id = NEW.index_id);
END

CREATE TRIGGER valuation_update BEFORE UPDATE ON valuation
BEGIN
  SELECT RAISE(ABORT, 'credit refuses: valuation is append-only: no row may be changed');
END
