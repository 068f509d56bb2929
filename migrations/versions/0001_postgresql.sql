CREATE TABLE ingest_file (
  id BIGINT NOT NULL CONSTRAINT ck_ingest_file_id CHECK (id >= 1),
  sha256 TEXT COLLATE "C" NOT NULL CONSTRAINT ck_ingest_file_sha256 CHECK (length(sha256) = 64),
  name TEXT COLLATE "C" NOT NULL,
  format TEXT COLLATE "C" NOT NULL,
  ingested_at TEXT COLLATE "C" NOT NULL CONSTRAINT ck_ingest_file_ingested_at CHECK (ingested_at LIKE '____-__-__T__:__:__.______Z'),
  accepted BIGINT NOT NULL CONSTRAINT ck_ingest_file_accepted CHECK (accepted >= 0),
  duplicates BIGINT NOT NULL CONSTRAINT ck_ingest_file_duplicates CHECK (duplicates >= 0),
  quarantined BIGINT NOT NULL CONSTRAINT ck_ingest_file_quarantined CHECK (quarantined >= 0),
  CONSTRAINT pk_ingest_file PRIMARY KEY (id)
)

CREATE TABLE model (
  id BIGINT NOT NULL CONSTRAINT ck_model_id CHECK (id >= 1),
  name TEXT COLLATE "C" NOT NULL CONSTRAINT ck_model_name CHECK (length(name) >= 1),
  CONSTRAINT pk_model PRIMARY KEY (id),
  CONSTRAINT uq_model_name UNIQUE (name)
)

CREATE TABLE period (
  id TEXT COLLATE "C" NOT NULL CONSTRAINT ck_period_id CHECK (id LIKE '____-__'),
  status TEXT COLLATE "C" NOT NULL CONSTRAINT ck_period_status CHECK (status IN ('open', 'closed')),
  opened_at TEXT COLLATE "C" NOT NULL CONSTRAINT ck_period_opened_at CHECK (opened_at LIKE '____-__-__T__:__:__.______Z'),
  closed_at TEXT COLLATE "C" CONSTRAINT ck_period_closed_at CHECK (closed_at LIKE '____-__-__T__:__:__.______Z'),
  close_policy_json TEXT COLLATE "C",
  CONSTRAINT pk_period PRIMARY KEY (id),
  CONSTRAINT ck_period_closed_when CHECK ((status = 'closed') = (closed_at IS NOT NULL)),
  CONSTRAINT ck_period_closed_how CHECK ((status = 'closed') = (close_policy_json IS NOT NULL))
)

CREATE TABLE provider (
  id BIGINT NOT NULL CONSTRAINT ck_provider_id CHECK (id >= 1),
  key TEXT COLLATE "C" NOT NULL CONSTRAINT ck_provider_key CHECK (length(key) >= 1),
  name TEXT COLLATE "C" NOT NULL,
  kind TEXT COLLATE "C" NOT NULL CONSTRAINT ck_provider_kind CHECK (kind IN ('provider', 'house')),
  created_at TEXT COLLATE "C" NOT NULL CONSTRAINT ck_provider_created_at CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_provider PRIMARY KEY (id),
  CONSTRAINT uq_provider_key UNIQUE (key)
)

CREATE TABLE account (
  id BIGINT NOT NULL CONSTRAINT ck_account_id CHECK (id >= 1),
  key TEXT COLLATE "C" NOT NULL CONSTRAINT ck_account_key CHECK (length(key) >= 1),
  kind TEXT COLLATE "C" NOT NULL CONSTRAINT ck_account_kind CHECK (kind IN ('credits:issued', 'credits:earned', 'money:external', 'money:pool', 'money:payable', 'money:payout')),
  provider_id BIGINT,
  collection TEXT COLLATE "C",
  CONSTRAINT pk_account PRIMARY KEY (id),
  CONSTRAINT uq_account_key UNIQUE (key),
  CONSTRAINT fk_account_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id)
)

CREATE INDEX ix_account_provider_id ON account (provider_id)

CREATE TABLE attribution_index (
  id BIGINT NOT NULL CONSTRAINT ck_attribution_index_id CHECK (id >= 1),
  model_id BIGINT NOT NULL,
  fingerprint TEXT COLLATE "C" NOT NULL CONSTRAINT ck_attribution_index_fingerprint CHECK (length(fingerprint) >= 1),
  manifest_json TEXT COLLATE "C" NOT NULL,
  registered_at TEXT COLLATE "C" NOT NULL CONSTRAINT ck_attribution_index_registered_at CHECK (registered_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_attribution_index PRIMARY KEY (id),
  CONSTRAINT uq_attribution_index_fingerprint UNIQUE (fingerprint),
  CONSTRAINT fk_attribution_index_model_id FOREIGN KEY(model_id) REFERENCES model (id)
)

CREATE TABLE contract_term (
  id BIGINT NOT NULL CONSTRAINT ck_contract_term_id CHECK (id >= 1),
  provider_id BIGINT NOT NULL,
  valid_from TEXT COLLATE "C" NOT NULL CONSTRAINT ck_contract_term_valid_from CHECK (valid_from LIKE '____-__-__'),
  currency TEXT COLLATE "C" NOT NULL CONSTRAINT ck_contract_term_currency CHECK (currency LIKE '___'),
  minimum_payout_minor BIGINT NOT NULL CONSTRAINT ck_contract_term_minimum_payout_minor CHECK (minimum_payout_minor >= 0),
  created_at TEXT COLLATE "C" NOT NULL CONSTRAINT ck_contract_term_created_at CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_contract_term PRIMARY KEY (id),
  CONSTRAINT uq_contract_term_provider_id_currency_valid_from UNIQUE (provider_id, currency, valid_from),
  CONSTRAINT fk_contract_term_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id)
)

CREATE TABLE ledger_txn (
  id BIGINT NOT NULL CONSTRAINT ck_ledger_txn_id CHECK (id >= 1),
  seq BIGINT NOT NULL,
  entry_count BIGINT NOT NULL CONSTRAINT ck_ledger_txn_entry_count CHECK (entry_count >= 2),
  kind TEXT COLLATE "C" NOT NULL CONSTRAINT ck_ledger_txn_kind CHECK (length(kind) >= 1),
  period_id TEXT COLLATE "C" NOT NULL,
  idempotency_key TEXT COLLATE "C" NOT NULL CONSTRAINT ck_ledger_txn_idempotency_key CHECK (length(idempotency_key) >= 1),
  input_sha256 TEXT COLLATE "C" NOT NULL CONSTRAINT ck_ledger_txn_input_sha256 CHECK (length(input_sha256) = 64),
  effective_on TEXT COLLATE "C" NOT NULL CONSTRAINT ck_ledger_txn_effective_on CHECK (effective_on LIKE '____-__-__'),
  recorded_at TEXT COLLATE "C" NOT NULL CONSTRAINT ck_ledger_txn_recorded_at CHECK (recorded_at LIKE '____-__-__T__:__:__.______Z'),
  reverses_txn_id BIGINT,
  memo TEXT COLLATE "C" NOT NULL,
  details_json TEXT COLLATE "C" NOT NULL,
  prev_hash TEXT COLLATE "C" NOT NULL CONSTRAINT ck_ledger_txn_prev_hash CHECK (length(prev_hash) = 64),
  hash TEXT COLLATE "C" NOT NULL CONSTRAINT ck_ledger_txn_hash CHECK (length(hash) = 64),
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

CREATE INDEX ix_ledger_txn_period_id ON ledger_txn (period_id)

CREATE TABLE output (
  id BIGINT NOT NULL CONSTRAINT ck_output_id CHECK (id >= 1),
  source TEXT COLLATE "C" NOT NULL,
  external_id TEXT COLLATE "C" NOT NULL CONSTRAINT ck_output_external_id CHECK (length(external_id) >= 1),
  model_id BIGINT NOT NULL,
  ingest_file_id BIGINT NOT NULL,
  occurred_at TEXT COLLATE "C" NOT NULL CONSTRAINT ck_output_occurred_at CHECK (occurred_at LIKE '____-__-__T__:__:__.______Z'),
  prompt TEXT COLLATE "C" NOT NULL,
  messages_json TEXT COLLATE "C",
  completion TEXT COLLATE "C" NOT NULL,
  weight_micro BIGINT NOT NULL CONSTRAINT ck_output_weight_micro CHECK (weight_micro >= 0),
  content_sha256 TEXT COLLATE "C" NOT NULL CONSTRAINT ck_output_content_sha256 CHECK (length(content_sha256) = 64),
  CONSTRAINT pk_output PRIMARY KEY (id),
  CONSTRAINT uq_output_source_external_id UNIQUE (source, external_id),
  CONSTRAINT fk_output_model_id FOREIGN KEY(model_id) REFERENCES model (id),
  CONSTRAINT fk_output_ingest_file_id FOREIGN KEY(ingest_file_id) REFERENCES ingest_file (id) DEFERRABLE INITIALLY DEFERRED
)

CREATE INDEX ix_output_model_id_id ON output (model_id, id)

CREATE INDEX ix_output_occurred_at ON output (occurred_at)

CREATE TABLE statement (
  id BIGINT NOT NULL CONSTRAINT ck_statement_id CHECK (id >= 1),
  period_id TEXT COLLATE "C" NOT NULL,
  provider_id BIGINT NOT NULL,
  version BIGINT NOT NULL CONSTRAINT ck_statement_version CHECK (version >= 1),
  sha256 TEXT COLLATE "C" NOT NULL CONSTRAINT ck_statement_sha256 CHECK (length(sha256) = 64),
  body_json TEXT COLLATE "C" NOT NULL,
  created_at TEXT COLLATE "C" NOT NULL CONSTRAINT ck_statement_created_at CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_statement PRIMARY KEY (id),
  CONSTRAINT uq_statement_period_id_provider_id_version UNIQUE (period_id, provider_id, version),
  CONSTRAINT fk_statement_period_id FOREIGN KEY(period_id) REFERENCES period (id),
  CONSTRAINT fk_statement_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id)
)

CREATE TABLE compute_run (
  id BIGINT NOT NULL CONSTRAINT ck_compute_run_id CHECK (id >= 1),
  fingerprint TEXT COLLATE "C" NOT NULL CONSTRAINT ck_compute_run_fingerprint CHECK (length(fingerprint) >= 1),
  index_id BIGINT NOT NULL,
  policy_json TEXT COLLATE "C" NOT NULL,
  software_version TEXT COLLATE "C" NOT NULL,
  created_at TEXT COLLATE "C" NOT NULL CONSTRAINT ck_compute_run_created_at CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_compute_run PRIMARY KEY (id),
  CONSTRAINT uq_compute_run_fingerprint UNIQUE (fingerprint),
  CONSTRAINT fk_compute_run_index_id FOREIGN KEY(index_id) REFERENCES attribution_index (id)
)

CREATE TABLE index_location (
  id BIGINT NOT NULL CONSTRAINT ck_index_location_id CHECK (id >= 1),
  index_id BIGINT NOT NULL,
  path TEXT COLLATE "C" NOT NULL CONSTRAINT ck_index_location_path CHECK (length(path) >= 1),
  registered_at TEXT COLLATE "C" NOT NULL CONSTRAINT ck_index_location_registered_at CHECK (registered_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_index_location PRIMARY KEY (id),
  CONSTRAINT fk_index_location_index_id FOREIGN KEY(index_id) REFERENCES attribution_index (id)
)

CREATE INDEX ix_index_location_index_id ON index_location (index_id)

CREATE TABLE ledger_entry (
  txn_id BIGINT NOT NULL,
  line_no BIGINT NOT NULL,
  entry_count BIGINT NOT NULL,
  account_id BIGINT NOT NULL,
  commodity TEXT COLLATE "C" NOT NULL CONSTRAINT ck_ledger_entry_commodity CHECK (length(commodity) >= 1),
  amount BIGINT NOT NULL,
  CONSTRAINT pk_ledger_entry PRIMARY KEY (txn_id, line_no),
  CONSTRAINT fk_ledger_entry_txn_id_entry_count FOREIGN KEY(txn_id, entry_count) REFERENCES ledger_txn (id, entry_count) DEFERRABLE INITIALLY DEFERRED,
  CONSTRAINT ck_ledger_entry_line_no CHECK (line_no BETWEEN 1 AND entry_count),
  CONSTRAINT ck_ledger_entry_amount CHECK (amount <> 0 AND amount >= -9223372036854775807),
  CONSTRAINT fk_ledger_entry_account_id FOREIGN KEY(account_id) REFERENCES account (id)
)

CREATE INDEX ix_ledger_entry_account_id ON ledger_entry (account_id)

CREATE TABLE payout (
  id BIGINT NOT NULL CONSTRAINT ck_payout_id CHECK (id >= 1),
  period_id TEXT COLLATE "C" NOT NULL,
  provider_id BIGINT NOT NULL,
  currency TEXT COLLATE "C" NOT NULL CONSTRAINT ck_payout_currency CHECK (currency LIKE '___'),
  amount_minor BIGINT NOT NULL CONSTRAINT ck_payout_amount_minor CHECK (amount_minor > 0),
  status TEXT COLLATE "C" NOT NULL CONSTRAINT ck_payout_status CHECK (status IN ('pending', 'exported', 'paid', 'failed')),
  txn_id BIGINT NOT NULL,
  CONSTRAINT pk_payout PRIMARY KEY (id),
  CONSTRAINT uq_payout_period_id_provider_id_currency UNIQUE (period_id, provider_id, currency),
  CONSTRAINT fk_payout_period_id FOREIGN KEY(period_id) REFERENCES period (id),
  CONSTRAINT fk_payout_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id),
  CONSTRAINT fk_payout_txn_id FOREIGN KEY(txn_id) REFERENCES ledger_txn (id)
)

CREATE TABLE pool (
  id BIGINT NOT NULL CONSTRAINT ck_pool_id CHECK (id >= 1),
  period_id TEXT COLLATE "C" NOT NULL,
  currency TEXT COLLATE "C" NOT NULL CONSTRAINT ck_pool_currency CHECK (currency LIKE '___'),
  reference TEXT COLLATE "C" NOT NULL CONSTRAINT ck_pool_reference CHECK (length(reference) >= 1),
  gross_minor BIGINT NOT NULL CONSTRAINT ck_pool_gross_minor CHECK (gross_minor >= 0),
  deductions_minor BIGINT NOT NULL CONSTRAINT ck_pool_deductions_minor CHECK (deductions_minor >= 0),
  net_minor BIGINT NOT NULL CONSTRAINT ck_pool_net_minor CHECK (net_minor >= 0),
  txn_id BIGINT,
  CONSTRAINT pk_pool PRIMARY KEY (id),
  CONSTRAINT ck_pool_net CHECK (net_minor = gross_minor - deductions_minor),
  CONSTRAINT ck_pool_posted CHECK ((txn_id IS NULL) = (net_minor = 0)),
  CONSTRAINT uq_pool_period_id_currency_reference UNIQUE (period_id, currency, reference),
  CONSTRAINT fk_pool_period_id FOREIGN KEY(period_id) REFERENCES period (id),
  CONSTRAINT fk_pool_txn_id FOREIGN KEY(txn_id) REFERENCES ledger_txn (id)
)

CREATE TABLE allocation (
  id BIGINT NOT NULL CONSTRAINT ck_allocation_id CHECK (id >= 1),
  period_id TEXT COLLATE "C" NOT NULL,
  pool_id BIGINT NOT NULL,
  provider_id BIGINT NOT NULL,
  credit_micro BIGINT NOT NULL CONSTRAINT ck_allocation_credit_micro CHECK (credit_micro >= 0),
  total_credit_micro BIGINT NOT NULL CONSTRAINT ck_allocation_total_credit_micro CHECK (total_credit_micro >= 0),
  amount_minor BIGINT NOT NULL CONSTRAINT ck_allocation_amount_minor CHECK (amount_minor >= 0),
  txn_id BIGINT,
  CONSTRAINT pk_allocation PRIMARY KEY (id),
  CONSTRAINT ck_allocation_share CHECK (credit_micro <= total_credit_micro),
  CONSTRAINT ck_allocation_posted CHECK ((txn_id IS NULL) = (amount_minor = 0)),
  CONSTRAINT uq_allocation_pool_id_provider_id UNIQUE (pool_id, provider_id),
  CONSTRAINT fk_allocation_period_id FOREIGN KEY(period_id) REFERENCES period (id),
  CONSTRAINT fk_allocation_pool_id FOREIGN KEY(pool_id) REFERENCES pool (id),
  CONSTRAINT fk_allocation_provider_id FOREIGN KEY(provider_id) REFERENCES provider (id),
  CONSTRAINT fk_allocation_txn_id FOREIGN KEY(txn_id) REFERENCES ledger_txn (id)
)

CREATE INDEX ix_allocation_period_id ON allocation (period_id)

CREATE TABLE score_book (
  id BIGINT NOT NULL CONSTRAINT ck_score_book_id CHECK (id >= 1),
  sha256 TEXT COLLATE "C" NOT NULL CONSTRAINT ck_score_book_sha256 CHECK (length(sha256) = 64),
  compute_run_id BIGINT NOT NULL,
  output_count BIGINT NOT NULL CONSTRAINT ck_score_book_output_count CHECK (output_count >= 0),
  row_count BIGINT NOT NULL CONSTRAINT ck_score_book_row_count CHECK (row_count >= 0),
  byte_count BIGINT NOT NULL CONSTRAINT ck_score_book_byte_count CHECK (byte_count >= 0),
  registered_at TEXT COLLATE "C" NOT NULL CONSTRAINT ck_score_book_registered_at CHECK (registered_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT pk_score_book PRIMARY KEY (id),
  CONSTRAINT uq_score_book_sha256 UNIQUE (sha256),
  CONSTRAINT fk_score_book_compute_run_id FOREIGN KEY(compute_run_id) REFERENCES compute_run (id)
)

CREATE TABLE valuation (
  output_id BIGINT NOT NULL,
  index_id BIGINT NOT NULL,
  score_book_id BIGINT NOT NULL,
  CONSTRAINT pk_valuation PRIMARY KEY (output_id, index_id),
  CONSTRAINT fk_valuation_output_id FOREIGN KEY(output_id) REFERENCES output (id),
  CONSTRAINT fk_valuation_index_id FOREIGN KEY(index_id) REFERENCES attribution_index (id),
  CONSTRAINT fk_valuation_score_book_id FOREIGN KEY(score_book_id) REFERENCES score_book (id)
)

CREATE INDEX ix_valuation_score_book_id ON valuation (score_book_id)

CREATE FUNCTION account_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of account may be deleted';
END
$$

CREATE TRIGGER account_delete BEFORE DELETE ON account FOR EACH ROW EXECUTE FUNCTION account_delete()

CREATE FUNCTION account_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: account is append-only: no row may be changed';
END
$$

CREATE TRIGGER account_update BEFORE UPDATE ON account FOR EACH ROW EXECUTE FUNCTION account_update()

CREATE FUNCTION allocation_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of allocation may be deleted';
END
$$

CREATE TRIGGER allocation_delete BEFORE DELETE ON allocation FOR EACH ROW EXECUTE FUNCTION allocation_delete()

CREATE FUNCTION allocation_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM 1 FROM period WHERE id = NEW.period_id FOR SHARE;
  IF EXISTS (SELECT 1 FROM period WHERE id = NEW.period_id AND status = 'closed') THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: the period is closed';
  END IF;
  RETURN NEW;
END
$$

CREATE TRIGGER allocation_insert BEFORE INSERT ON allocation FOR EACH ROW EXECUTE FUNCTION allocation_insert()

CREATE FUNCTION allocation_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: allocation is append-only: no row may be changed';
END
$$

CREATE TRIGGER allocation_update BEFORE UPDATE ON allocation FOR EACH ROW EXECUTE FUNCTION allocation_update()

CREATE FUNCTION attribution_index_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of attribution_index may be deleted';
END
$$

CREATE TRIGGER attribution_index_delete BEFORE DELETE ON attribution_index FOR EACH ROW EXECUTE FUNCTION attribution_index_delete()

CREATE FUNCTION attribution_index_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: attribution_index is append-only: no row may be changed';
END
$$

CREATE TRIGGER attribution_index_update BEFORE UPDATE ON attribution_index FOR EACH ROW EXECUTE FUNCTION attribution_index_update()

CREATE FUNCTION compute_run_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of compute_run may be deleted';
END
$$

CREATE TRIGGER compute_run_delete BEFORE DELETE ON compute_run FOR EACH ROW EXECUTE FUNCTION compute_run_delete()

CREATE FUNCTION compute_run_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: compute_run is append-only: no row may be changed';
END
$$

CREATE TRIGGER compute_run_update BEFORE UPDATE ON compute_run FOR EACH ROW EXECUTE FUNCTION compute_run_update()

CREATE FUNCTION contract_term_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of contract_term may be deleted';
END
$$

CREATE TRIGGER contract_term_delete BEFORE DELETE ON contract_term FOR EACH ROW EXECUTE FUNCTION contract_term_delete()

CREATE FUNCTION contract_term_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: contract_term is append-only: no row may be changed';
END
$$

CREATE TRIGGER contract_term_update BEFORE UPDATE ON contract_term FOR EACH ROW EXECUTE FUNCTION contract_term_update()

CREATE FUNCTION index_location_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of index_location may be deleted';
END
$$

CREATE TRIGGER index_location_delete BEFORE DELETE ON index_location FOR EACH ROW EXECUTE FUNCTION index_location_delete()

CREATE FUNCTION index_location_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: index_location is append-only: no row may be changed';
END
$$

CREATE TRIGGER index_location_update BEFORE UPDATE ON index_location FOR EACH ROW EXECUTE FUNCTION index_location_update()

CREATE FUNCTION ingest_file_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of ingest_file may be deleted';
END
$$

CREATE TRIGGER ingest_file_delete BEFORE DELETE ON ingest_file FOR EACH ROW EXECUTE FUNCTION ingest_file_delete()

CREATE FUNCTION ingest_file_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: ingest_file is append-only: no row may be changed';
END
$$

CREATE TRIGGER ingest_file_update BEFORE UPDATE ON ingest_file FOR EACH ROW EXECUTE FUNCTION ingest_file_update()

CREATE FUNCTION ledger_entry_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of ledger_entry may be deleted';
END
$$

CREATE TRIGGER ledger_entry_delete BEFORE DELETE ON ledger_entry FOR EACH ROW EXECUTE FUNCTION ledger_entry_delete()

CREATE FUNCTION ledger_entry_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT 1 FROM ledger_txn WHERE id = NEW.txn_id) THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: a late entry: the transaction is complete';
  END IF;
  RETURN NEW;
END
$$

CREATE TRIGGER ledger_entry_insert BEFORE INSERT ON ledger_entry FOR EACH ROW EXECUTE FUNCTION ledger_entry_insert()

CREATE FUNCTION ledger_entry_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: ledger_entry is append-only: no row may be changed';
END
$$

CREATE TRIGGER ledger_entry_update BEFORE UPDATE ON ledger_entry FOR EACH ROW EXECUTE FUNCTION ledger_entry_update()

CREATE FUNCTION ledger_txn_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of ledger_txn may be deleted';
END
$$

CREATE TRIGGER ledger_txn_delete BEFORE DELETE ON ledger_txn FOR EACH ROW EXECUTE FUNCTION ledger_txn_delete()

CREATE FUNCTION ledger_txn_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM 1 FROM period WHERE id = NEW.period_id FOR SHARE;
  IF EXISTS (SELECT 1 FROM period WHERE id = NEW.period_id AND status = 'closed') THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: the period is closed';
  END IF;
  IF (SELECT count(*) FROM ledger_entry WHERE txn_id = NEW.id) <> NEW.entry_count THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: the number of entries is not entry_count';
  END IF;
  IF EXISTS (SELECT 1 FROM ledger_entry WHERE txn_id = NEW.id GROUP BY commodity HAVING sum(amount / 4294967296) + sum(amount % 4294967296) / 4294967296 <> 0 OR sum(amount % 4294967296) % 4294967296 <> 0) THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: the entries do not sum to zero in every commodity';
  END IF;
  IF NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM ledger_txn) THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: seq does not follow the last transaction';
  END IF;
  IF NEW.prev_hash <> coalesce((SELECT hash FROM ledger_txn ORDER BY seq DESC LIMIT 1), '0000000000000000000000000000000000000000000000000000000000000000') THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: prev_hash is not the hash of the last transaction';
  END IF;
  IF NEW.reverses_txn_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM ledger_txn WHERE id = NEW.reverses_txn_id) THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: there is no such transaction to reverse';
  END IF;
  IF NEW.reverses_txn_id IS NOT NULL AND EXISTS (SELECT 1 FROM ledger_txn WHERE reverses_txn_id = NEW.reverses_txn_id) THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: the transaction has been reversed before';
  END IF;
  IF NEW.reverses_txn_id IS NOT NULL AND (NEW.entry_count <> (SELECT entry_count FROM ledger_txn WHERE id = NEW.reverses_txn_id) OR EXISTS (SELECT 1 FROM ledger_entry AS n JOIN ledger_entry AS o ON o.txn_id = NEW.reverses_txn_id AND o.line_no = n.line_no WHERE n.txn_id = NEW.id AND (n.account_id <> o.account_id OR n.commodity <> o.commodity OR n.amount <> -o.amount))) THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: a reversal must negate every entry of what it reverses';
  END IF;
  RETURN NEW;
END
$$

CREATE TRIGGER ledger_txn_insert BEFORE INSERT ON ledger_txn FOR EACH ROW EXECUTE FUNCTION ledger_txn_insert()

CREATE FUNCTION ledger_txn_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: ledger_txn is append-only: no row may be changed';
END
$$

CREATE TRIGGER ledger_txn_update BEFORE UPDATE ON ledger_txn FOR EACH ROW EXECUTE FUNCTION ledger_txn_update()

CREATE FUNCTION model_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of model may be deleted';
END
$$

CREATE TRIGGER model_delete BEFORE DELETE ON model FOR EACH ROW EXECUTE FUNCTION model_delete()

CREATE FUNCTION model_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: model is append-only: no row may be changed';
END
$$

CREATE TRIGGER model_update BEFORE UPDATE ON model FOR EACH ROW EXECUTE FUNCTION model_update()

CREATE FUNCTION output_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of output may be deleted';
END
$$

CREATE TRIGGER output_delete BEFORE DELETE ON output FOR EACH ROW EXECUTE FUNCTION output_delete()

CREATE FUNCTION output_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: output is append-only: no row may be changed';
END
$$

CREATE TRIGGER output_update BEFORE UPDATE ON output FOR EACH ROW EXECUTE FUNCTION output_update()

CREATE FUNCTION payout_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of payout may be deleted';
END
$$

CREATE TRIGGER payout_delete BEFORE DELETE ON payout FOR EACH ROW EXECUTE FUNCTION payout_delete()

CREATE FUNCTION payout_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.id <> OLD.id OR NEW.period_id <> OLD.period_id OR NEW.provider_id <> OLD.provider_id OR NEW.currency <> OLD.currency OR NEW.amount_minor <> OLD.amount_minor OR NEW.txn_id <> OLD.txn_id THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: only the status of a payout may change';
  END IF;
  IF NOT (OLD.status = 'pending' AND NEW.status = 'exported') AND NOT (OLD.status = 'exported' AND NEW.status = 'paid') AND NOT (OLD.status = 'exported' AND NEW.status = 'failed') AND NOT (OLD.status = 'failed' AND NEW.status = 'pending') THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: a payout goes from pending to exported, from exported to paid or failed, from failed to pending';
  END IF;
  RETURN NEW;
END
$$

CREATE TRIGGER payout_update BEFORE UPDATE ON payout FOR EACH ROW EXECUTE FUNCTION payout_update()

CREATE FUNCTION period_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of period may be deleted';
END
$$

CREATE TRIGGER period_delete BEFORE DELETE ON period FOR EACH ROW EXECUTE FUNCTION period_delete()

CREATE FUNCTION period_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.status <> 'open' THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: a period starts open';
  END IF;
  RETURN NEW;
END
$$

CREATE TRIGGER period_insert BEFORE INSERT ON period FOR EACH ROW EXECUTE FUNCTION period_insert()

CREATE FUNCTION period_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.status = 'closed' THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: the period is closed: it stays closed, as it was closed';
  END IF;
  IF NEW.status <> 'closed' OR NEW.id <> OLD.id OR NEW.opened_at <> OLD.opened_at THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: the only change to a period is to close it';
  END IF;
  RETURN NEW;
END
$$

CREATE TRIGGER period_update BEFORE UPDATE ON period FOR EACH ROW EXECUTE FUNCTION period_update()

CREATE FUNCTION pool_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of pool may be deleted';
END
$$

CREATE TRIGGER pool_delete BEFORE DELETE ON pool FOR EACH ROW EXECUTE FUNCTION pool_delete()

CREATE FUNCTION pool_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM 1 FROM period WHERE id = NEW.period_id FOR SHARE;
  IF EXISTS (SELECT 1 FROM period WHERE id = NEW.period_id AND status = 'closed') THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: the period is closed';
  END IF;
  RETURN NEW;
END
$$

CREATE TRIGGER pool_insert BEFORE INSERT ON pool FOR EACH ROW EXECUTE FUNCTION pool_insert()

CREATE FUNCTION pool_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: pool is append-only: no row may be changed';
END
$$

CREATE TRIGGER pool_update BEFORE UPDATE ON pool FOR EACH ROW EXECUTE FUNCTION pool_update()

CREATE FUNCTION provider_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of provider may be deleted';
END
$$

CREATE TRIGGER provider_delete BEFORE DELETE ON provider FOR EACH ROW EXECUTE FUNCTION provider_delete()

CREATE FUNCTION provider_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.id <> OLD.id OR NEW.key <> OLD.key OR NEW.created_at <> OLD.created_at THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: a provider''s id, key and created_at stay as they are';
  END IF;
  IF NEW.kind <> OLD.kind AND EXISTS (SELECT 1 FROM account WHERE provider_id = OLD.id) THEN
    RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: a provider that has been credited stays of its kind';
  END IF;
  RETURN NEW;
END
$$

CREATE TRIGGER provider_update BEFORE UPDATE ON provider FOR EACH ROW EXECUTE FUNCTION provider_update()

CREATE FUNCTION score_book_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of score_book may be deleted';
END
$$

CREATE TRIGGER score_book_delete BEFORE DELETE ON score_book FOR EACH ROW EXECUTE FUNCTION score_book_delete()

CREATE FUNCTION score_book_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: score_book is append-only: no row may be changed';
END
$$

CREATE TRIGGER score_book_update BEFORE UPDATE ON score_book FOR EACH ROW EXECUTE FUNCTION score_book_update()

CREATE FUNCTION statement_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of statement may be deleted';
END
$$

CREATE TRIGGER statement_delete BEFORE DELETE ON statement FOR EACH ROW EXECUTE FUNCTION statement_delete()

CREATE FUNCTION statement_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: statement is append-only: no row may be changed';
END
$$

CREATE TRIGGER statement_update BEFORE UPDATE ON statement FOR EACH ROW EXECUTE FUNCTION statement_update()

CREATE FUNCTION valuation_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of valuation may be deleted';
END
$$

CREATE TRIGGER valuation_delete BEFORE DELETE ON valuation FOR EACH ROW EXECUTE FUNCTION valuation_delete()

CREATE FUNCTION valuation_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: valuation is append-only: no row may be changed';
END
$$

CREATE TRIGGER valuation_update BEFORE UPDATE ON valuation FOR EACH ROW EXECUTE FUNCTION valuation_update()

CREATE FUNCTION contract_term_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of contract_term may be deleted';
END
$$

CREATE TRIGGER contract_term_truncate BEFORE TRUNCATE ON contract_term FOR EACH STATEMENT EXECUTE FUNCTION contract_term_truncate()

CREATE FUNCTION account_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of account may be deleted';
END
$$

CREATE TRIGGER account_truncate BEFORE TRUNCATE ON account FOR EACH STATEMENT EXECUTE FUNCTION account_truncate()

CREATE FUNCTION model_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of model may be deleted';
END
$$

CREATE TRIGGER model_truncate BEFORE TRUNCATE ON model FOR EACH STATEMENT EXECUTE FUNCTION model_truncate()

CREATE FUNCTION attribution_index_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of attribution_index may be deleted';
END
$$

CREATE TRIGGER attribution_index_truncate BEFORE TRUNCATE ON attribution_index FOR EACH STATEMENT EXECUTE FUNCTION attribution_index_truncate()

CREATE FUNCTION index_location_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of index_location may be deleted';
END
$$

CREATE TRIGGER index_location_truncate BEFORE TRUNCATE ON index_location FOR EACH STATEMENT EXECUTE FUNCTION index_location_truncate()

CREATE FUNCTION ingest_file_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of ingest_file may be deleted';
END
$$

CREATE TRIGGER ingest_file_truncate BEFORE TRUNCATE ON ingest_file FOR EACH STATEMENT EXECUTE FUNCTION ingest_file_truncate()

CREATE FUNCTION output_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of output may be deleted';
END
$$

CREATE TRIGGER output_truncate BEFORE TRUNCATE ON output FOR EACH STATEMENT EXECUTE FUNCTION output_truncate()

CREATE FUNCTION compute_run_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of compute_run may be deleted';
END
$$

CREATE TRIGGER compute_run_truncate BEFORE TRUNCATE ON compute_run FOR EACH STATEMENT EXECUTE FUNCTION compute_run_truncate()

CREATE FUNCTION score_book_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of score_book may be deleted';
END
$$

CREATE TRIGGER score_book_truncate BEFORE TRUNCATE ON score_book FOR EACH STATEMENT EXECUTE FUNCTION score_book_truncate()

CREATE FUNCTION valuation_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of valuation may be deleted';
END
$$

CREATE TRIGGER valuation_truncate BEFORE TRUNCATE ON valuation FOR EACH STATEMENT EXECUTE FUNCTION valuation_truncate()

CREATE FUNCTION ledger_txn_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of ledger_txn may be deleted';
END
$$

CREATE TRIGGER ledger_txn_truncate BEFORE TRUNCATE ON ledger_txn FOR EACH STATEMENT EXECUTE FUNCTION ledger_txn_truncate()

CREATE FUNCTION ledger_entry_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of ledger_entry may be deleted';
END
$$

CREATE TRIGGER ledger_entry_truncate BEFORE TRUNCATE ON ledger_entry FOR EACH STATEMENT EXECUTE FUNCTION ledger_entry_truncate()

CREATE FUNCTION pool_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of pool may be deleted';
END
$$

CREATE TRIGGER pool_truncate BEFORE TRUNCATE ON pool FOR EACH STATEMENT EXECUTE FUNCTION pool_truncate()

CREATE FUNCTION allocation_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of allocation may be deleted';
END
$$

CREATE TRIGGER allocation_truncate BEFORE TRUNCATE ON allocation FOR EACH STATEMENT EXECUTE FUNCTION allocation_truncate()

CREATE FUNCTION statement_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of statement may be deleted';
END
$$

CREATE TRIGGER statement_truncate BEFORE TRUNCATE ON statement FOR EACH STATEMENT EXECUTE FUNCTION statement_truncate()

CREATE FUNCTION provider_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of provider may be deleted';
END
$$

CREATE TRIGGER provider_truncate BEFORE TRUNCATE ON provider FOR EACH STATEMENT EXECUTE FUNCTION provider_truncate()

CREATE FUNCTION period_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of period may be deleted';
END
$$

CREATE TRIGGER period_truncate BEFORE TRUNCATE ON period FOR EACH STATEMENT EXECUTE FUNCTION period_truncate()

CREATE FUNCTION payout_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'credit refuses: no row of payout may be deleted';
END
$$

CREATE TRIGGER payout_truncate BEFORE TRUNCATE ON payout FOR EACH STATEMENT EXECUTE FUNCTION payout_truncate()
