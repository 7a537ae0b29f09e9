/** The requests of a soak: each one, or a few, as programs send them all day. */
import { z } from 'zod';
import type { Caller, HostileSystem } from '../hostile/system.ts';

/** A refusal is an answer to too much load; anything else but an answer is a fault. */
export type Outcome = 'answered' | 'refused' | { readonly failed: string };

export interface Asker {
  readonly name: string;
  /** The part of the mix that it has, beside the others. */
  readonly weight: number;
  ask(system: HostileSystem, caller: Caller, id: number): Promise<Outcome>;
}

const chatPath = '/v1/chat/completions';
const user = (content: string) => ({ role: 'user', content });
const story = 'The red house by the river belongs to Anna, who sells bread. ';

const weather = {
  type: 'function',
  function: { name: 'weather', parameters: { type: 'object', properties: {} } },
};

const place = {
  type: 'json_schema',
  json_schema: {
    name: 'place',
    schema: {
      type: 'object',
      properties: { place: { type: 'string', maxLength: 8 }, isWarm: { type: 'boolean' } },
      required: ['place', 'isWarm'],
    },
  },
};

export const askers: readonly Asker[] = [
  whole('short, whole', 6, chatPath, (id) => ({ messages: [user(`Hello ${id}.`)], max_tokens: 8 })),
  streamed('short, streamed', 6, chatPath, (id) => ({
    messages: [user(`Hello ${id}.`)],
    max_tokens: 16,
  })),
  streamed('long, streamed', 1, chatPath, (id) => ({
    messages: [user(`${id}: ${story.repeat(30)}Who sells bread?`)],
    max_tokens: 64,
  })),
  whole('three answers', 1, chatPath, (id) => ({
    messages: [user(`Three, ${id}.`)],
    max_tokens: 8,
    n: 3,
  })),
  whole('a tool', 1, chatPath, (id) => ({
    messages: [user(`The weather, ${id}?`)],
    max_tokens: 48,
    tools: [weather],
    tool_choice: 'required',
  })),
  whole('a schema', 1, chatPath, (id) => ({
    messages: [user(`The weather, ${id}?`)],
    max_tokens: 24,
    response_format: place,
  })),
  whole('a completion', 2, '/v1/completions', (id) => ({ prompt: `Once ${id}`, max_tokens: 8 })),
  streamed('a message', 2, '/anthropic/v1/messages', (id) => ({
    messages: [user(`Hello ${id}.`)],
    max_tokens: 8,
  })),
  whole('under a key', 1, chatPath, (id) => ({ messages: [user(`Key ${id}.`)], max_tokens: 4 }), {
    keyed: true,
  }),
  {
    name: 'a conversation',
    weight: 2,
    async ask(system, caller, id) {
      const messages: { role: string; content: string }[] = [user(`${id}: ${story.repeat(8)}`)];
      for (let turn = 0; turn < 3; turn++) {
        const response = await system.post(caller, chatPath, { messages, max_tokens: 8 });
        const outcome = await outcomeOf(response);
        if (typeof outcome !== 'string' || outcome === 'refused') return outcome;
        messages.push({ role: 'assistant', content: 'Yes.' }, user(`And then, ${turn}?`));
      }
      return 'answered';
    },
  },
  {
    name: 'a client that leaves',
    weight: 2,
    async ask(system, caller, id) {
      const client = new AbortController();
      const body = { messages: [user(`Leaving ${id}.`)], max_tokens: 200, stream: true };
      const { signal } = client;
      const response = await system.post(caller, chatPath, body, { signal });
      if (!response.ok) return outcomeOf(response);
      await response.body?.getReader().read();
      client.abort();
      return 'answered';
    },
  },
];

type BodyOf = (id: number) => Readonly<Record<string, unknown>>;

function whole(
  name: string,
  weight: number,
  path: string,
  bodyOf: BodyOf,
  { keyed = false } = {},
): Asker {
  return {
    name,
    weight,
    async ask(system, caller, id) {
      const headers = keyed ? { 'idempotency-key': `soak-${id}` } : {};
      return outcomeOf(await system.post(caller, path, bodyOf(id), { headers }));
    },
  };
}

function streamed(name: string, weight: number, path: string, bodyOf: BodyOf): Asker {
  return {
    name,
    weight,
    async ask(system, caller, id) {
      const response = await system.post(caller, path, { ...bodyOf(id), stream: true });
      if (!response.ok) return outcomeOf(response);
      const text = await response.text();
      const hasEnded = text.includes('data: [DONE]') || text.includes('event: message_stop');
      return hasEnded ? 'answered' : { failed: `a stream ended in ${text.slice(-300)}` };
    },
  };
}

const usageSchema = z.looseObject({ usage: z.looseObject({ cost_nano_usd: z.int().min(1) }) });

async function outcomeOf(response: Response): Promise<Outcome> {
  const text = await response.text();
  if (response.status === 429) return 'refused';
  if (!response.ok) return { failed: `${response.status} ${text.slice(0, 300)}` };
  const isBilled = usageSchema.safeParse(JSON.parse(text)).success;
  return isBilled ? 'answered' : { failed: `an answer without its cost: ${text.slice(0, 300)}` };
}
