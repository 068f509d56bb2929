CREATE TABLE fx_rate (
  id INTEGER NOT NULL CONSTRAINT ck_fx_rate_id CHECK (id >= 1),
  on_day TEXT NOT NULL CONSTRAINT ck_fx_rate_on_day CHECK (on_day LIKE '____-__-__'),
  base TEXT NOT NULL CONSTRAINT ck_fx_rate_base CHECK (base LIKE '___'),
  quote TEXT NOT NULL CONSTRAINT ck_fx_rate_quote CHECK (quote LIKE '___' AND quote <> base),
  version INTEGER NOT NULL CONSTRAINT ck_fx_rate_version CHECK (version >= 1),
  coefficient INTEGER NOT NULL CONSTRAINT ck_fx_rate_coefficient CHECK (coefficient >= 1),
  digits INTEGER NOT NULL CONSTRAINT ck_fx_rate_digits CHECK (digits BETWEEN 0 AND 12),
  source TEXT NOT NULL CONSTRAINT ck_fx_rate_source CHECK (length(source) >= 1),
  created_at TEXT NOT NULL CONSTRAINT ck_fx_rate_created_at CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_fx_rate PRIMARY KEY (id),
  CONSTRAINT uq_fx_rate_on_day_base_quote_version UNIQUE (on_day, base, quote, version)
) STRICT;
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
) STRICT;
CREATE TABLE issuer (
  id INTEGER NOT NULL CONSTRAINT ck_issuer_id CHECK (id >= 1),
  name TEXT NOT NULL CONSTRAINT ck_issuer_name CHECK (length(name) >= 1),
  address TEXT NOT NULL CONSTRAINT ck_issuer_address CHECK (length(address) >= 1),
  legal TEXT NOT NULL,
  created_at TEXT NOT NULL CONSTRAINT ck_issuer_created_at CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_issuer PRIMARY KEY (id)
) STRICT;
CREATE TABLE model (
  id INTEGER NOT NULL CONSTRAINT ck_model_id CHECK (id >= 1),
  name TEXT NOT NULL CONSTRAINT ck_model_name CHECK (length(name) >= 1),
  CONSTRAINT pk_model PRIMARY KEY (id),
  CONSTRAINT uq_model_name UNIQUE (name)
) STRICT;
CREATE TABLE period (
  id TEXT NOT NULL CONSTRAINT ck_period_id CHECK (id LIKE '____-__'),
  status TEXT NOT NULL CONSTRAINT ck_period_status CHECK (status IN ('open', 'closed')),
  opened_at TEXT NOT NULL CONSTRAINT ck_period_opened_at CHECK (opened_at LIKE '____-__-__T__:__:__.______Z'),
  closed_at TEXT CONSTRAINT ck_period_closed_at CHECK (closed_at LIKE '____-__-__T__:__:__.______Z'),
  close_policy_json TEXT,
  CONSTRAINT pk_period PRIMARY KEY (id),
  CONSTRAINT ck_period_closed_when CHECK ((status = 'closed') = (closed_at IS NOT NULL)),
  CONSTRAINT ck_period_closed_how CHECK ((status = 'closed') = (close_policy_json IS NOT NULL))
) STRICT;
CREATE TABLE provider (
  id INTEGER NOT NULL CONSTRAINT ck_provider_id CHECK (id >= 1),
  "key" TEXT NOT NULL CONSTRAINT ck_provider_key CHECK (length(key) >= 1),
  name TEXT NOT NULL,
  kind TEXT NOT NULL CONSTRAINT ck_provider_kind CHECK (kind IN ('provider', 'house')),
  created_at TEXT NOT NULL CONSTRAINT ck_provider_created_at CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_provider PRIMARY KEY (id),
  CONSTRAINT uq_provider_key UNIQUE ("key")
) STRICT;
CREATE TABLE seal (
  id INTEGER NOT NULL CONSTRAINT ck_seal_id CHECK (id >= 1),
  table_name TEXT NOT NULL CONSTRAINT ck_seal_table_name CHECK (length(table_name) >= 1),
  row_id INTEGER NOT NULL,
  row_sha256 TEXT NOT NULL CONSTRAINT ck_seal_row_sha256 CHECK (length(row_sha256) = 64),
  prev_hash TEXT NOT NULL CONSTRAINT ck_seal_prev_hash CHECK (length(prev_hash) = 64),
  hash TEXT NOT NULL CONSTRAINT ck_seal_hash CHECK (length(hash) = 64),
  CONSTRAINT pk_seal PRIMARY KEY (id),
  CONSTRAINT uq_seal_hash UNIQUE (hash)
) STRICT;
CREATE INDEX ix_seal_table_name_row_id ON seal (table_name, row_id);
CREATE TABLE account (
  id INTEGER NOT NULL CONSTRAINT ck_account_id CHECK (id >= 1),
  "key" TEXT NOT NULL CONSTRAINT ck_account_key CHECK (length(key) >= 1),
  kind TEXT NOT NULL CONSTRAINT ck_account_kind CHECK (kind IN ('credits:issued', 'credits:earned', 'money:external', 'money:pool', 'money:payable', 'money:payout', 'money:reserve', 'money:advance', 'money:withholding', 'money:fees', 'money:escrow', 'money:fx', 'credits:unvalued', 'money:held')),
  provider_id INTEGER,
  collection TEXT,
  CONSTRAINT pk_account PRIMARY KEY (id),
  CONSTRAINT uq_account_key UNIQUE ("key"),
  CONSTRAINT fk_account_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id)
) STRICT;
CREATE INDEX ix_account_provider_id ON account (provider_id);
CREATE TABLE attribution_index (
  id INTEGER NOT NULL CONSTRAINT ck_attribution_index_id CHECK (id >= 1),
  model_id INTEGER NOT NULL,
  fingerprint TEXT NOT NULL CONSTRAINT ck_attribution_index_fingerprint CHECK (length(fingerprint) >= 1),
  manifest_json TEXT NOT NULL,
  registered_at TEXT NOT NULL CONSTRAINT ck_attribution_index_registered_at CHECK (registered_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_attribution_index PRIMARY KEY (id),
  CONSTRAINT uq_attribution_index_fingerprint UNIQUE (fingerprint),
  CONSTRAINT fk_attribution_index_model_id FOREIGN KEY(model_id) REFERENCES model (id)
) STRICT;
CREATE TABLE contract_term (
  id INTEGER NOT NULL CONSTRAINT ck_contract_term_id CHECK (id >= 1),
  provider_id INTEGER NOT NULL,
  currency TEXT NOT NULL CONSTRAINT ck_contract_term_currency CHECK (currency LIKE '___'),
  version INTEGER NOT NULL CONSTRAINT ck_contract_term_version CHECK (version >= 0),
  valid_from TEXT NOT NULL CONSTRAINT ck_contract_term_valid_from CHECK (valid_from LIKE '____-__-__'),
  valid_to TEXT CONSTRAINT ck_contract_term_valid_to CHECK (valid_to LIKE '____-__-__'),
  supersedes INTEGER NOT NULL CONSTRAINT ck_contract_term_supersedes CHECK (supersedes IN (0, 1)),
  rate_ppm INTEGER NOT NULL CONSTRAINT ck_contract_term_rate_ppm CHECK (rate_ppm BETWEEN 0 AND 1000000),
  minimum_payout_minor INTEGER NOT NULL CONSTRAINT ck_contract_term_minimum_payout_minor CHECK (minimum_payout_minor >= 0),
  reserve_ppm INTEGER NOT NULL CONSTRAINT ck_contract_term_reserve_ppm CHECK (reserve_ppm BETWEEN 0 AND 1000000),
  reserve_release_periods INTEGER NOT NULL CONSTRAINT ck_contract_term_reserve_release_periods CHECK (reserve_release_periods >= 0),
  recoupment_ppm INTEGER NOT NULL CONSTRAINT ck_contract_term_recoupment_ppm CHECK (recoupment_ppm BETWEEN 0 AND 1000000),
  withholding_ppm INTEGER NOT NULL CONSTRAINT ck_contract_term_withholding_ppm CHECK (withholding_ppm BETWEEN 0 AND 1000000),
  fee_minor INTEGER NOT NULL CONSTRAINT ck_contract_term_fee_minor CHECK (fee_minor >= 0),
  agreement_reference TEXT NOT NULL,
  created_at TEXT NOT NULL CONSTRAINT ck_contract_term_created_at CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  pay_in TEXT DEFAULT '' NOT NULL CONSTRAINT ck_contract_term_pay_in CHECK (pay_in = '' OR (pay_in LIKE '___' AND pay_in <> currency)),
  CONSTRAINT pk_contract_term PRIMARY KEY (id),
  CONSTRAINT ck_contract_term_valid CHECK (valid_to >= valid_from),
  CONSTRAINT ck_contract_term_reserve CHECK ((reserve_ppm = 0) = (reserve_release_periods = 0)),
  CONSTRAINT uq_contract_term_provider_id_currency_version UNIQUE (provider_id, currency, version),
  CONSTRAINT fk_contract_term_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id)
) STRICT;
CREATE TABLE hold (
  id INTEGER NOT NULL CONSTRAINT ck_hold_id CHECK (id >= 1),
  provider_id INTEGER NOT NULL,
  currency TEXT CONSTRAINT ck_hold_currency CHECK (currency LIKE '___'),
  action TEXT NOT NULL CONSTRAINT ck_hold_action CHECK (action IN ('hold', 'release')),
  reason TEXT NOT NULL CONSTRAINT ck_hold_reason CHECK (length(reason) >= 1),
  created_at TEXT NOT NULL CONSTRAINT ck_hold_created_at CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  collection TEXT CONSTRAINT ck_hold_collection CHECK (collection IS NULL OR (length(collection) >= 1 AND currency IS NULL)),
  CONSTRAINT pk_hold PRIMARY KEY (id),
  CONSTRAINT fk_hold_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id)
) STRICT;
CREATE INDEX ix_hold_provider_id ON hold (provider_id);
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
) STRICT;
CREATE INDEX ix_ledger_txn_period_id ON ledger_txn (period_id);
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
) STRICT;
CREATE INDEX ix_output_ingest_file_id ON output (ingest_file_id);
CREATE INDEX ix_output_model_id_id ON output (model_id, id);
CREATE INDEX ix_output_occurred_at ON output (occurred_at);
CREATE TABLE personal_event (
  id INTEGER NOT NULL CONSTRAINT ck_personal_event_id CHECK (id >= 1),
  provider_id INTEGER NOT NULL,
  action TEXT NOT NULL CONSTRAINT ck_personal_event_action CHECK (action IN ('set', 'erased')),
  reason TEXT NOT NULL,
  recorded_at TEXT NOT NULL CONSTRAINT ck_personal_event_recorded_at CHECK (recorded_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_personal_event PRIMARY KEY (id),
  CONSTRAINT ck_personal_event_reason CHECK (action = 'set' OR length(reason) >= 1),
  CONSTRAINT fk_personal_event_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id)
) STRICT;
CREATE INDEX ix_personal_event_provider_id ON personal_event (provider_id);
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
) STRICT;
CREATE TABLE certificate (
  id INTEGER NOT NULL CONSTRAINT ck_certificate_id CHECK (id >= 1),
  index_id INTEGER NOT NULL,
  kind TEXT NOT NULL CONSTRAINT ck_certificate_kind CHECK (kind IN ('retraining', 'quick')),
  sha256 TEXT NOT NULL CONSTRAINT ck_certificate_sha256 CHECK (length(sha256) = 64),
  body_json TEXT NOT NULL,
  registered_at TEXT NOT NULL CONSTRAINT ck_certificate_registered_at CHECK (registered_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_certificate PRIMARY KEY (id),
  CONSTRAINT uq_certificate_sha256 UNIQUE (sha256),
  CONSTRAINT fk_certificate_index_id FOREIGN KEY(index_id) REFERENCES attribution_index (id)
) STRICT;
CREATE INDEX ix_certificate_index_id ON certificate (index_id);
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
) STRICT;
CREATE TABLE index_location (
  id INTEGER NOT NULL CONSTRAINT ck_index_location_id CHECK (id >= 1),
  index_id INTEGER NOT NULL,
  path TEXT NOT NULL CONSTRAINT ck_index_location_path CHECK (length(path) >= 1),
  registered_at TEXT NOT NULL CONSTRAINT ck_index_location_registered_at CHECK (registered_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_index_location PRIMARY KEY (id),
  CONSTRAINT fk_index_location_index_id FOREIGN KEY(index_id) REFERENCES attribution_index (id)
) STRICT;
CREATE INDEX ix_index_location_index_id ON index_location (index_id);
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
) WITHOUT ROWID, STRICT;
CREATE INDEX ix_ledger_entry_account_id ON ledger_entry (account_id);
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
) STRICT;
CREATE TABLE payout_batch (
  id INTEGER NOT NULL CONSTRAINT ck_payout_batch_id CHECK (id >= 1),
  period_id TEXT NOT NULL,
  currency TEXT NOT NULL CONSTRAINT ck_payout_batch_currency CHECK (currency LIKE '___'),
  format TEXT NOT NULL CONSTRAINT ck_payout_batch_format CHECK (format IN ('csv', 'pain001', 'paypal', 'wise')),
  reference TEXT NOT NULL CONSTRAINT ck_payout_batch_reference CHECK (length(reference) >= 1),
  payer_json TEXT NOT NULL,
  payout_count INTEGER NOT NULL CONSTRAINT ck_payout_batch_payout_count CHECK (payout_count >= 1),
  amount_minor INTEGER NOT NULL CONSTRAINT ck_payout_batch_amount_minor CHECK (amount_minor >= 1),
  file_sha256 TEXT NOT NULL CONSTRAINT ck_payout_batch_file_sha256 CHECK (length(file_sha256) = 64),
  txn_id INTEGER NOT NULL,
  created_at TEXT NOT NULL CONSTRAINT ck_payout_batch_created_at CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_payout_batch PRIMARY KEY (id),
  CONSTRAINT uq_payout_batch_reference UNIQUE (reference),
  CONSTRAINT fk_payout_batch_period_id FOREIGN KEY(period_id) REFERENCES period (id),
  CONSTRAINT fk_payout_batch_txn_id FOREIGN KEY(txn_id) REFERENCES ledger_txn (id)
) STRICT;
CREATE INDEX ix_payout_batch_period_id ON payout_batch (period_id);
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
) STRICT;
CREATE TABLE provider_pii (
  id INTEGER NOT NULL,
  provider_id INTEGER NOT NULL,
  legal_name TEXT NOT NULL,
  account_holder TEXT NOT NULL,
  receiver TEXT NOT NULL CONSTRAINT ck_provider_pii_receiver CHECK (receiver IN ('', 'person', 'institution')),
  email TEXT NOT NULL,
  street TEXT NOT NULL,
  building TEXT NOT NULL,
  postcode TEXT NOT NULL,
  town TEXT NOT NULL,
  country TEXT NOT NULL,
  iban TEXT NOT NULL,
  bic TEXT NOT NULL,
  paypal TEXT NOT NULL,
  tax_id TEXT NOT NULL,
  salt TEXT NOT NULL CONSTRAINT ck_provider_pii_salt CHECK (length(salt) = 64),
  CONSTRAINT pk_provider_pii PRIMARY KEY (id),
  CONSTRAINT fk_provider_pii_id FOREIGN KEY(id) REFERENCES personal_event (id),
  CONSTRAINT fk_provider_pii_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id)
) STRICT;
CREATE INDEX ix_provider_pii_provider_id ON provider_pii (provider_id);
CREATE TABLE reserve (
  id INTEGER NOT NULL CONSTRAINT ck_reserve_id CHECK (id >= 1),
  period_id TEXT NOT NULL,
  provider_id INTEGER NOT NULL,
  currency TEXT NOT NULL CONSTRAINT ck_reserve_currency CHECK (currency LIKE '___'),
  amount_minor INTEGER NOT NULL CONSTRAINT ck_reserve_amount_minor CHECK (amount_minor > 0),
  release_period TEXT NOT NULL CONSTRAINT ck_reserve_month CHECK (release_period LIKE '____-__'),
  txn_id INTEGER NOT NULL,
  CONSTRAINT pk_reserve PRIMARY KEY (id),
  CONSTRAINT ck_reserve_release_later CHECK (release_period > period_id),
  CONSTRAINT uq_reserve_period_id_provider_id_currency UNIQUE (period_id, provider_id, currency),
  CONSTRAINT fk_reserve_period_id FOREIGN KEY(period_id) REFERENCES period (id),
  CONSTRAINT fk_reserve_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id),
  CONSTRAINT fk_reserve_txn_id FOREIGN KEY(txn_id) REFERENCES ledger_txn (id)
) STRICT;
CREATE INDEX ix_reserve_release_period ON reserve (release_period);
CREATE TABLE unvalued (
  id INTEGER NOT NULL CONSTRAINT ck_unvalued_id CHECK (id >= 1),
  output_id INTEGER NOT NULL,
  action TEXT NOT NULL CONSTRAINT ck_unvalued_action CHECK (action IN ('unvalued', 'restored')),
  reason TEXT NOT NULL CONSTRAINT ck_unvalued_reason CHECK (length(reason) >= 1),
  txn_id INTEGER NOT NULL,
  recorded_at TEXT NOT NULL CONSTRAINT ck_unvalued_recorded_at CHECK (recorded_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_unvalued PRIMARY KEY (id),
  CONSTRAINT uq_unvalued_txn_id UNIQUE (txn_id),
  CONSTRAINT fk_unvalued_output_id FOREIGN KEY(output_id) REFERENCES output (id),
  CONSTRAINT fk_unvalued_txn_id FOREIGN KEY(txn_id) REFERENCES ledger_txn (id)
) STRICT;
CREATE INDEX ix_unvalued_output_id ON unvalued (output_id);
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
) STRICT;
CREATE INDEX ix_allocation_period_id ON allocation (period_id);
CREATE TABLE payout_event (
  id INTEGER NOT NULL CONSTRAINT ck_payout_event_id CHECK (id >= 1),
  payout_id INTEGER NOT NULL,
  batch_id INTEGER NOT NULL,
  status TEXT NOT NULL CONSTRAINT ck_payout_event_status CHECK (status IN ('exported', 'paid', 'failed')),
  details_id INTEGER,
  reference TEXT NOT NULL,
  reason TEXT NOT NULL,
  txn_id INTEGER NOT NULL,
  recorded_at TEXT NOT NULL CONSTRAINT ck_payout_event_recorded_at CHECK (recorded_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_payout_event PRIMARY KEY (id),
  CONSTRAINT ck_payout_event_details CHECK ((status = 'exported') = (details_id IS NOT NULL)),
  CONSTRAINT uq_payout_event_payout_id_batch_id_status UNIQUE (payout_id, batch_id, status),
  CONSTRAINT fk_payout_event_payout_id FOREIGN KEY(payout_id) REFERENCES payout (id),
  CONSTRAINT fk_payout_event_batch_id FOREIGN KEY(batch_id) REFERENCES payout_batch (id),
  CONSTRAINT fk_payout_event_details_id FOREIGN KEY(details_id) REFERENCES personal_event (id),
  CONSTRAINT fk_payout_event_txn_id FOREIGN KEY(txn_id) REFERENCES ledger_txn (id)
) STRICT;
CREATE INDEX ix_payout_event_batch_id ON payout_event (batch_id);
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
) STRICT;
CREATE TABLE valuation (
  output_id INTEGER NOT NULL,
  index_id INTEGER NOT NULL,
  score_book_id INTEGER NOT NULL,
  CONSTRAINT pk_valuation PRIMARY KEY (output_id, index_id),
  CONSTRAINT fk_valuation_output_id FOREIGN KEY(output_id) REFERENCES output (id),
  CONSTRAINT fk_valuation_index_id FOREIGN KEY(index_id) REFERENCES attribution_index (id),
  CONSTRAINT fk_valuation_score_book_id FOREIGN KEY(score_book_id) REFERENCES score_book (id)
) WITHOUT ROWID, STRICT;
CREATE INDEX ix_valuation_score_book_id ON valuation (score_book_id);
