import journal from './meta/_journal.json';
import m0000 from './0000_begin.sql';
import m0001 from './0001_guards.sql';
import m0002 from './0002_idempotency_answers.sql';
import m0003 from './0003_prefix_promises.sql';
import m0004 from './0004_identity.sql';
import m0005 from './0005_key_priority.sql';
import m0006 from './0006_stored_responses.sql';
import m0007 from './0007_receipts.sql';
import m0008 from './0008_budgets.sql';
import m0009 from './0009_account.sql';

export default {
  journal,
  migrations: {
    m0000,
    m0001,
    m0002,
    m0003,
    m0004,
    m0005,
    m0006,
    m0007,
    m0008,
    m0009,
  },
};
