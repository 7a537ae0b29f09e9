/**
 * The values of `format` that are enforced, as regular expressions: JSON Schema's, and those that
 * zod and pydantic write. Dates are those of the calendar; e-mail addresses, host names and URIs
 * are the usual ones, not all that an RFC allows, and every one of them is valid for the RFC and
 * for WHATWG's URLs. Formats that are not here restrict nothing.
 */

const year = '[0-9]{4}';
const leapYear =
  '(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)';
const date =
  `(?:${year}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|` +
  `(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))|${leapYear}-02-29)`;
const time =
  '(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?' +
  '(?:Z|[+-](?:0[0-9]|1[0-9]|2[0-3]):[0-5][0-9])';
/** A label of a host name, of at most so many characters. */
const label = (length: number): string =>
  `[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,${length - 2}}[a-zA-Z0-9])?`;
/** A label such as xn--a would have to be punycode. */
const punycode = '(?:[^.]*\\.)*[^.]{2}--';
/** Between `min` and `max` labels. */
const domain = (length: number, min: number, max: number): string =>
  `${label(length)}(?:\\.${label(length)}){${min - 1},${max - 1}}`;
/** A host name has at most 253 characters: few long labels, or more of them that are shorter. */
const hostname = `(?!${punycode})(?:${domain(63, 1, 3)}|${domain(40, 4, 6)})`;
const letter = "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]";
const mailbox = `(?:${letter}{1,64}|${letter}{1,20}(?:\\.${letter}{1,20}){1,2})`;
/** An address has at most 254 characters. */
const email = `(?![^@]*@${punycode})${mailbox}@(?:${domain(62, 2, 3)}|${domain(36, 4, 5)})`;
const octet = '(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])';
const ipv4 = `${octet}(?:\\.${octet}){3}`;
const group = '[0-9a-fA-F]{1,4}';
const ipv6 = [
  `(?:${group}:){7}${group}`,
  `(?:${group}:){1,7}:`,
  ...[6, 5, 4, 3, 2, 1].map((before) => `(?:${group}:){${before}}(?::${group}){1,${7 - before}}`),
  `:(?::${group}){1,7}`,
  '::',
].join('|');

const count = '[0-9]{1,9}';
/** Units follow one another without a gap, as RFC 3339 has it. */
const minutes = `${count}M(?:${count}S)?`;
const timeOfDuration = `T(?:${count}H(?:${minutes})?|${minutes}|${count}S)`;
const months = `${count}M(?:${count}D)?`;
const dateOfDuration = `(?:${count}Y(?:${months})?|${months}|${count}D)`;
const duration = `P(?:${count}W|${dateOfDuration}(?:${timeOfDuration})?|${timeOfDuration})`;

const percent = '%[0-9a-fA-F]{2}';
const character = `(?:[a-zA-Z0-9._~!$&'()*+,;=:@-]|${percent})`;
const path = `(?:${character}|/)*`;
const ending = `(?:\\?(?:${character}|[/?])*)?(?:#(?:${character}|[/?])*)?`;
/** A name that ends in digits would be taken for an address, one with two hyphens for punycode. */
const hostLabel = '[a-zA-Z0-9]+(?:-[a-zA-Z0-9]+)*';
const registered = `(?:${hostLabel}\\.)*[a-zA-Z][a-zA-Z0-9]*(?:-[a-zA-Z0-9]+)*`;
const port = '(?:6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[0-9]{1,4})';
const user = `(?:(?:[a-zA-Z0-9._~!$&'()*+,;=:-]|${percent})*@)?`;
const authority = `${user}(?:${registered}|${ipv4}|\\[(?:${ipv6})\\])(?::${port})?`;
const scheme = '[a-zA-Z][a-zA-Z0-9+.-]*';
/** Schemes that URLs always have a host with. */
const withHost = '(?:https?|wss?|ftp|file)';
const uri =
  `(?:(?![fF][iI][lL][eE]:)${scheme}://${authority}(?:/${path})?${ending}|` +
  `file:///${path}${ending}|` +
  `(?!${withHost}:)[a-z][a-z0-9+.-]*:${character}${path}${ending})`;
const firstSegment = `(?:[a-zA-Z0-9._~!$&'()*+,;=@-]|${percent})+`;
const relative = `(?:/(?:${character}${path})?|${firstSegment}(?:/${path})?)?${ending}`;
const pointer = '(?:/(?:[^~/]|~[01])*)*';
const base64 =
  '(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?';
const base64url =
  '(?:[A-Za-z0-9_-]{4})*(?:[A-Za-z0-9_-][AQgw]|[A-Za-z0-9_-]{2}[AEIMQUYcgkosw048])?';

/** The headers that are met, then any claims and any signature. */
const algorithms = ['HS', 'RS', 'ES', 'PS'].flatMap((family) =>
  ['256', '384', '512'].map((bits) => family + bits),
);
const headers = [...algorithms, 'EdDSA'].flatMap((alg) =>
  [{ alg }, { alg, typ: 'JWT' }, { typ: 'JWT', alg }].map((header) =>
    Buffer.from(JSON.stringify(header)).toString('base64url'),
  ),
);
const jwt = `(?:${headers.join('|')})\\.[A-Za-z0-9_-]+\\.[A-Za-z0-9_-]+`;

export const formatPatterns: ReadonlyMap<string, string> = new Map(
  Object.entries({
    date,
    time,
    'date-time': `${date}T${time}`,
    duration,
    hostname,
    'idn-hostname': hostname,
    email,
    'idn-email': email,
    uri,
    iri: uri,
    'uri-reference': `(?:${uri}|${relative})`,
    'iri-reference': `(?:${uri}|${relative})`,
    // A template without a variable; RFC 6570 leaves out the apostrophe.
    'uri-template': `(?=[^']*$)(?:${uri}|${relative})`,
    'json-pointer': pointer,
    'relative-json-pointer': `(?:0|[1-9][0-9]{0,8})(?:#|${pointer})`,
    ipv4,
    ipv6,
    uuid: '[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}',
    base64,
    byte: base64,
    base64url,
    jwt,
    cidrv4: `${ipv4}/(?:3[0-2]|[12]?[0-9])`,
    cidrv6: `(?:${ipv6})/(?:12[0-8]|1[01][0-9]|[1-9]?[0-9])`,
    e164: '\\+[1-9][0-9]{6,14}',
  }).map(([name, pattern]) => [name, `^(?:${pattern})$`]),
);

export interface ShorterFormat {
  readonly source: string;
  /** The characters of the format's longest text. */
  readonly lengthMax: number;
}

/**
 * Makes the pattern of a URI whose path, query and fragment are bounded, escapes counted as one.
 */
function shorterUri(pathMax: number, queryMax: number, fragmentMax: number): string {
  const part = '[a-zA-Z0-9](?:-?[a-zA-Z0-9]){0,15}';
  const host = `(?:${part}\\.){0,3}[a-zA-Z](?:-?[a-zA-Z0-9]){0,11}`;
  const any = `(?:[a-zA-Z0-9._~!$&'()*+,;=:@/?-]|${percent})`;
  return (
    `(?![fF][iI][lL][eE]:)[a-zA-Z][a-zA-Z0-9+.-]{0,9}://${host}(?::${port})?` +
    `(?:/(?:${character}|/){0,${pathMax}})?(?:\\?${any}{0,${queryMax}})?` +
    (fragmentMax === 0 ? '' : `(?:#${any}{0,${fragmentMax}})?`)
  );
}

const shorterUris = [
  { source: shorterUri(300, 250, 80), lengthMax: 2048 },
  { source: shorterUri(150, 100, 30), lengthMax: 1000 },
  { source: shorterUri(80, 30, 8), lengthMax: 500 },
  { source: shorterUri(30, 8, 0), lengthMax: 255 },
];
const shorterEmails = [
  { source: email, lengthMax: 254 },
  { source: `(?![^@]*@${punycode})${letter}{1,32}@${domain(32, 2, 2)}`, lengthMax: 98 },
  { source: `(?![^@]*@${punycode})${letter}{1,16}@${domain(16, 2, 2)}`, lengthMax: 50 },
];
const shorterHostnames = [
  { source: hostname, lengthMax: 253 },
  { source: `(?!${punycode})${domain(24, 1, 4)}`, lengthMax: 99 },
  { source: `(?!${punycode})${domain(15, 1, 3)}`, lengthMax: 47 },
];

/**
 * Some of the texts of formats that are long, the shorter the later. What is both of a format and
 * of a length would otherwise need a state for each length at each place of the format.
 */
export const shorterFormats: ReadonlyMap<string, readonly ShorterFormat[]> = new Map(
  Object.entries({
    uri: shorterUris,
    iri: shorterUris,
    email: shorterEmails,
    'idn-email': shorterEmails,
    hostname: shorterHostnames,
    'idn-hostname': shorterHostnames,
  }).map(([name, all]) => [
    name,
    all.map(({ source, lengthMax }) => ({ source: `^(?:${source})$`, lengthMax })),
  ]),
);
