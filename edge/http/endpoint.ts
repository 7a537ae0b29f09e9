/**
 * One route as data: its path, what it takes, what it answers and what does it. The same value is
 * mounted, checked and documented, so that the three cannot differ.
 */
import type { z } from 'zod';
import type { AppContext } from '../middleware/app-env.ts';
import type { Services } from '../services.ts';

export interface Endpoint {
  readonly method: 'get' | 'post' | 'put' | 'patch' | 'delete';
  /** It is written as in OpenAPI: `/tenants/{tenant}`. */
  readonly path: string;
  /** Other paths of the same route. */
  readonly aliases: readonly string[];
  readonly summary: string;
  readonly description: string;
  readonly params: z.ZodObject | null;
  readonly query: z.ZodObject | null;
  readonly headers: z.ZodObject | null;
  readonly body: z.ZodType | null;
  readonly status: 200 | 201;
  /** The schema of the answer, under each media type that it may have. */
  readonly content: Readonly<Record<string, z.ZodType>>;
  run(services: Services, c: AppContext): Promise<Response>;
}
