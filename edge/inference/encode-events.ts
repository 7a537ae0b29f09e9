/**
 * Writes a worker's events in the client's dialect. Events that only add text, which are most of a
 * stream, differ in that text alone once they are written, too: what stands around it is written
 * once.
 */
import { anyText, joined, withText } from '../engines/text-events.ts';
import type { Chunk } from '../engines/chunk.ts';
import type { StreamEncoder } from '../dialects/answer-format.ts';
import type { WorkerEvent } from '../relay/worker-stream.ts';

/** The characters around the text of an event as it is written. */
interface Envelope {
  readonly like: Chunk;
  readonly before: string;
  readonly after: string;
  /** false where the dialect leaves such texts out. */
  readonly hasText: boolean;
}

export function eventEncoder(encoder: StreamEncoder): (event: WorkerEvent) => string {
  let envelope: Envelope | null = null;
  return ({ chunk, usage, texts }) => {
    if (texts === null) {
      // It may close what the texts before it stood in.
      envelope = null;
      return encoder.chunk(chunk, usage);
    }
    let written = '';
    let from = 0;
    if (envelope?.like !== chunk) {
      // The first one opens what the others go on in.
      const [first = ''] = texts;
      written = encoder.chunk(joined({ like: chunk, texts: [first] }), usage);
      envelope = envelopeOf(encoder, chunk);
      from = 1;
    }
    const { before, after, hasText } = envelope;
    for (let index = from; index < texts.length; index++) {
      written += hasText ? before + texts[index] + after : before;
    }
    return written;
  };
}

function envelopeOf(encoder: StreamEncoder, like: Chunk): Envelope {
  const [before = '', after] = encoder.chunk(withText(like, anyText), null).split(anyText);
  return { like, before, after: after ?? '', hasText: after !== undefined };
}

/** The event as one chunk. */
export function wholeChunk({ chunk, texts }: WorkerEvent): Chunk {
  return texts === null ? chunk : joined({ like: chunk, texts });
}
