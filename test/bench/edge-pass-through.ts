/** Hono on Node alone: it passes a request on and its answer back. edge.ts compares with it. */
import { serve } from '@hono/node-server';
import { Hono } from 'hono';

const [upstream = ''] = process.argv.slice(2);
const app = new Hono();
app.post('*', async (c) => {
  const answer = await fetch(`${upstream}${c.req.path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: await c.req.text(),
  });
  return new Response(answer.body, {
    headers: { 'content-type': answer.headers.get('content-type') ?? '' },
  });
});
serve({ fetch: app.fetch, port: 0, hostname: '127.0.0.1' }, ({ port }) =>
  console.log(`http://127.0.0.1:${port}`),
);
