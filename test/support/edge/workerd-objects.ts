/** The Durable Objects alone: tests inside workerd need no routes, and load faster without them. */
export { FleetObject } from '../../../edge/cloudflare/fleet-object.ts';
export { TenantObject } from '../../../edge/cloudflare/tenant-object.ts';

export default {
  fetch: (): Response => new Response('these objects are called directly', { status: 404 }),
};
