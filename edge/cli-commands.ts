/** The commands as a table: what each takes and which route it calls; and how an answer reads. */
import { formatUsd } from './money-text.ts';

export type Call = (
  method: 'GET' | 'POST' | 'PATCH' | 'DELETE',
  path: string,
  body?: unknown,
) => Promise<unknown>;
export type Flags = Readonly<Record<string, string | boolean | undefined>>;

interface Input {
  readonly call: Call;
  /** One per parameter. */
  readonly values: readonly string[];
  readonly flags: Flags;
  readonly env: Readonly<Record<string, string | undefined>>;
}

export interface Command {
  /** One or two words. */
  readonly name: string;
  readonly parameters: readonly string[];
  readonly options: readonly string[];
  readonly summary: string;
  run(input: Input): Promise<unknown>;
}

const at = (values: readonly string[], index: number): string =>
  encodeURIComponent(values[index] ?? '');
const limitOptions = ['requests-per-minute', 'tokens-per-minute', 'concurrent-requests'];

const commands: readonly Command[] = [
  {
    name: 'tenants list',
    parameters: [],
    options: [],
    summary: 'all tenants',
    run: ({ call }) => call('GET', '/tenants'),
  },
  {
    name: 'tenants create',
    parameters: ['tenant'],
    options: ['name'],
    summary: 'a new tenant',
    run: ({ call, values, flags }) =>
      call('POST', '/tenants', { id: values[0], ...given('name', flags['name']) }),
  },
  {
    name: 'tenants show',
    parameters: ['tenant'],
    options: [],
    summary: 'a tenant and its balance',
    run: ({ call, values }) => call('GET', `/tenants/${at(values, 0)}`),
  },
  {
    name: 'tenants suspend',
    parameters: ['tenant'],
    options: [],
    summary: 'refuse its requests',
    run: ({ call, values }) => call('PATCH', `/tenants/${at(values, 0)}`, { status: 'suspended' }),
  },
  {
    name: 'tenants resume',
    parameters: ['tenant'],
    options: [],
    summary: 'serve its requests again',
    run: ({ call, values }) => call('PATCH', `/tenants/${at(values, 0)}`, { status: 'active' }),
  },
  {
    name: 'tenants limit',
    parameters: ['tenant'],
    options: limitOptions,
    summary: 'limits over all of its keys; one that is left out is lifted',
    run: ({ call, values, flags }) =>
      call('PATCH', `/tenants/${at(values, 0)}`, { limits: limitsOf(flags) }),
  },
  {
    name: 'keys list',
    parameters: ['tenant'],
    options: [],
    summary: "a tenant's keys",
    run: ({ call, values }) => call('GET', `/tenants/${at(values, 0)}/keys`),
  },
  {
    name: 'keys create',
    parameters: ['tenant'],
    options: ['label', 'scopes', ...limitOptions],
    summary: 'a new key, shown this once (scopes: inference,read,admin)',
    run: ({ call, values, flags }) =>
      call('POST', `/tenants/${at(values, 0)}/keys`, {
        ...given('label', flags['label']),
        ...given('scopes', flags['scopes'] && String(flags['scopes']).split(',')),
        limits: limitsOf(flags),
      }),
  },
  {
    name: 'keys limit',
    parameters: ['tenant', 'key-id'],
    options: limitOptions,
    summary: 'limits of one key; one that is left out is lifted',
    run: ({ call, values, flags }) =>
      call('PATCH', `/tenants/${at(values, 0)}/keys/${at(values, 1)}`, { limits: limitsOf(flags) }),
  },
  {
    name: 'keys revoke',
    parameters: ['tenant', 'key-id'],
    options: [],
    summary: 'refuse a key from the next request on, for good',
    run: ({ call, values }) =>
      call('PATCH', `/tenants/${at(values, 0)}/keys/${at(values, 1)}`, { status: 'revoked' }),
  },
  {
    name: 'credits add',
    parameters: ['tenant', 'usd'],
    options: ['kind', 'source', 'note'],
    summary: 'credit (kind: granted or topped-up); a source counts once',
    run: ({ call, values, flags }) =>
      call('POST', `/tenants/${at(values, 0)}/credits`, {
        kind: flags['kind'] ?? 'granted',
        amount_nano_usd: nanoUsdOf(values[1] ?? ''),
        source: flags['source'] ?? crypto.randomUUID(),
        ...given('note', flags['note']),
      }),
  },
  {
    name: 'corrections add',
    parameters: ['tenant', 'entry-id', 'usd'],
    options: ['note'],
    summary: 'correct an entry by a new one; a note is needed (write a negative amount after --)',
    run: ({ call, values, flags }) =>
      call('POST', `/tenants/${at(values, 0)}/corrections`, {
        entry_id: integerOf(values[1] ?? '', 'entry id'),
        amount_nano_usd: nanoUsdOf(values[2] ?? ''),
        note: flags['note'],
      }),
  },
  {
    name: 'entries list',
    parameters: ['tenant'],
    options: ['after', 'limit'],
    summary: "a page of a tenant's ledger",
    run: ({ call, values, flags }) =>
      call(
        'GET',
        `/tenants/${at(values, 0)}/entries${queryOf({ after_id: flags['after'], limit: flags['limit'] })}`,
      ),
  },
  {
    name: 'checkout create',
    parameters: ['tenant', 'usd'],
    options: ['success-url', 'cancel-url'],
    summary: 'a page of Stripe to pay on',
    run: ({ call, values, flags }) =>
      call('POST', `/tenants/${at(values, 0)}/checkout`, {
        amount_cents: nanoUsdOf(values[1] ?? '') / 10_000_000,
        success_url: flags['success-url'],
        cancel_url: flags['cancel-url'],
      }),
  },
  {
    name: 'models list',
    parameters: [],
    options: [],
    summary: 'all models',
    run: ({ call }) => call('GET', '/models'),
  },
  {
    name: 'models put',
    parameters: ['model', 'context-length', 'revision', 'tokenizer'],
    options: ['owned-by'],
    summary: 'a new model, or a change of one',
    run: ({ call, values, flags }) =>
      call('POST', '/models', {
        id: values[0],
        context_length: integerOf(values[1] ?? '', 'context length'),
        revision: values[2],
        tokenizer: values[3],
        ...given('owned_by', flags['owned-by']),
      }),
  },
  {
    name: 'prices list',
    parameters: [],
    options: ['model'],
    summary: 'all prices, past and future ones too',
    run: ({ call, flags }) => call('GET', `/prices${queryOf({ model: flags['model'] })}`),
  },
  {
    name: 'prices add',
    parameters: ['model', 'cached-usd', 'input-usd', 'output-usd'],
    options: ['from', 'window'],
    summary:
      'USD per million tokens, from a time on (ISO 8601), in a daily window (HH:MM-HH:MM UTC)',
    run: ({ call, values, flags }) =>
      call('POST', '/prices', {
        model: values[0],
        input_cached: nanoUsdOf(values[1] ?? ''),
        input: nanoUsdOf(values[2] ?? ''),
        output: nanoUsdOf(values[3] ?? ''),
        ...given('from_ms', flags['from'] && timeOf(String(flags['from']))),
        ...given('window', flags['window'] && windowOf(String(flags['window']))),
      }),
  },
  {
    name: 'workers list',
    parameters: [],
    options: [],
    summary: 'all workers and what is in flight on each',
    run: ({ call }) => call('GET', '/workers'),
  },
  {
    name: 'workers drain',
    parameters: ['worker'],
    options: [],
    summary: 'send it nothing new',
    run: ({ call, values }) => call('POST', `/workers/${at(values, 0)}/drain`, { draining: true }),
  },
  {
    name: 'workers resume',
    parameters: ['worker'],
    options: [],
    summary: 'send it requests again',
    run: ({ call, values }) => call('POST', `/workers/${at(values, 0)}/drain`, { draining: false }),
  },
  {
    name: 'workers add',
    parameters: ['worker', 'url'],
    options: ['token-env'],
    summary:
      'an engine that does not announce itself; its token is read from that environment variable',
    run: ({ call, values, flags, env }) =>
      call('POST', '/workers', {
        id: values[0],
        url: values[1],
        ...given('token', tokenFrom(env, flags['token-env'])),
      }),
  },
  {
    name: 'workers remove',
    parameters: ['worker'],
    options: [],
    summary: 'forget an engine that was added so',
    run: ({ call, values }) => call('DELETE', `/workers/${at(values, 0)}`),
  },
  {
    name: 'export usage',
    parameters: [],
    options: ['format', 'tenant', 'from', 'to'],
    summary: 'usage per tenant, day, model and key (format: jsonl or csv)',
    run: ({ call, flags }) =>
      call(
        'GET',
        `/export/usage${queryOf({ format: flags['format'], tenant: flags['tenant'], from: flags['from'], to: flags['to'] })}`,
      ),
  },
  {
    name: 'export entries',
    parameters: [],
    options: ['format', 'tenant'],
    summary: 'every entry of the ledgers (format: jsonl or csv)',
    run: ({ call, flags }) =>
      call(
        'GET',
        `/export/entries${queryOf({ format: flags['format'], tenant: flags['tenant'] })}`,
      ),
  },
  {
    name: 'prefixes',
    parameters: [],
    options: ['tenant', 'from', 'to'],
    summary: 'how often the prefix index promised what no worker had',
    run: ({ call, flags }) =>
      call(
        'GET',
        `/prefixes${queryOf({ tenant: flags['tenant'], from: flags['from'], to: flags['to'] })}`,
      ),
  },
  {
    name: 'audit',
    parameters: [],
    options: ['tenant'],
    summary: 'recomputes every balance from its entries',
    run: ({ call, flags }) => call('GET', `/audit${queryOf({ tenant: flags['tenant'] })}`),
  },
];

export function findCommand(words: readonly string[]): Command | null {
  const two = words.slice(0, 2).join(' ');
  return commands.find(({ name }) => name === two || name === words[0]) ?? null;
}

export function usageOf(command: Command | null): string {
  if (command !== null) return lineOf(command);
  const common = '--url <edge>, --json; the token comes from EDGE_ADMIN_TOKEN';
  return [
    'usage: npm run admin -- <command>',
    ...commands.map((each) => `  ${lineOf(each)}`),
    common,
  ].join('\n');
}

function lineOf({ name, parameters, options, summary }: Command): string {
  const written = [
    name,
    ...parameters.map((each) => `<${each}>`),
    ...options.map((each) => `[--${each}]`),
  ];
  return `${written.join(' ')}  ${summary}`;
}

export function errorOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** A token on the command line would be read by whoever lists the processes. */
function tokenFrom(env: Input['env'], name: Flags[string]): string | undefined {
  if (name === undefined) return undefined;
  const token = env[String(name)];
  if (!token) throw new Error(`the environment variable ${String(name)} is not set`);
  return token;
}

function given(name: string, value: unknown): Readonly<Record<string, unknown>> {
  return value === undefined ? {} : { [name]: value };
}

function queryOf(values: Flags): string {
  const pairs = Object.entries(values).flatMap(([name, value]) =>
    value === undefined ? [] : [[name, String(value)]],
  );
  return pairs.length === 0 ? '' : `?${new URLSearchParams(pairs)}`;
}

function limitsOf(flags: Flags): Readonly<Record<string, number | null>> {
  return Object.fromEntries(
    limitOptions.map((name) => [
      name.replaceAll('-', '_'),
      flags[name] === undefined ? null : integerOf(String(flags[name]), name),
    ]),
  );
}

/** What JavaScript takes for no number would be sent as null, which for a limit means none. */
function integerOf(text: string, name: string): number {
  if (!/^\d{1,15}$/.test(text)) throw new Error(`'${text}' is no ${name}: expected an integer`);
  return Number(text);
}

function timeOf(text: string): number {
  const ms = Date.parse(text);
  if (Number.isNaN(ms)) throw new Error(`'${text}' is no time, such as 2026-12-01T00:00:00Z`);
  return ms;
}

function windowOf(text: string): { readonly start_minute: number; readonly end_minute: number } {
  const [, ...parts] = /^(\d\d):(\d\d)-(\d\d):(\d\d)$/.exec(text) ?? [];
  if (parts.length !== 4) throw new Error(`'${text}' is no window, such as 16:30-00:30`);
  const [startHour = 0, startMinute = 0, endHour = 0, endMinute = 0] = parts.map(Number);
  return { start_minute: startHour * 60 + startMinute, end_minute: endHour * 60 + endMinute };
}

/** Dollars as text to nano-USD, exactly. */
function nanoUsdOf(text: string): number {
  const [, sign = '', dollars = '', decimals = ''] =
    /^(-?)(\d{1,7})(?:\.(\d{1,9}))?$/.exec(text) ?? [];
  if (dollars === '') throw new Error(`'${text}' is no amount in dollars, such as 12.50`);
  const size = Number(dollars) * 1_000_000_000 + Number(decimals.padEnd(9, '0'));
  return sign === '-' ? -size : size;
}

/** An answer for people: one line per row of a list, `name: value` for the fields of one object; amounts in dollars. */
export function table(answer: unknown): string {
  if (!isObject(answer)) return String(answer);
  const lists = Object.entries(answer).filter(([, value]) => Array.isArray(value));
  const [only] = lists;
  if (only !== undefined && Object.keys(answer).length === 1 && Array.isArray(only[1])) {
    const rows = only[1].map((row: unknown) => (isObject(row) ? fieldsOf(row) : [String(row)]));
    return rows.length === 0 ? `no ${only[0]}` : rows.map((fields) => fields.join('  ')).join('\n');
  }
  return fieldsOf(answer).join('\n');
}

function fieldsOf(row: Readonly<Record<string, unknown>>, prefix = ''): string[] {
  return Object.entries(row).flatMap(([name, value]) => {
    if (value === null) return [];
    if (isObject(value)) return fieldsOf(value, `${prefix}${name}.`);
    if (typeof value === 'number' && name.endsWith('_nano_usd')) {
      return [`${prefix}${name.replace('_nano_usd', '')}: ${formatUsd(value)} USD`];
    }
    if (typeof value === 'number' && name.endsWith('_at_ms')) {
      return [`${prefix}${name.replace('_ms', '')}: ${new Date(value).toISOString()}`];
    }
    return [`${prefix}${name}: ${Array.isArray(value) ? JSON.stringify(value) : String(value)}`];
  });
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
