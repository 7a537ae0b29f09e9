/** Everything that an edge answers, the same in both runtimes. */
import { adminRoutes } from './admin/routes.ts';
import { workerRoutes } from './fleet-routes.ts';
import { createApp } from './app.ts';
import type { Mount } from './app.ts';
import { mountOperatorRoutes } from './observe/operator-routes.ts';
import { paymentRoutes } from './payments/webhook-route.ts';
import type { Services } from './services.ts';

export const mounts: readonly Mount[] = [
  mountOperatorRoutes,
  (app, services) => app.route('/admin', adminRoutes(services)),
  (app, services) => app.route('/payments', paymentRoutes(services)),
  (app, services) => app.route('/internal/workers', workerRoutes(services)),
];

export function createEdge(services: Services): ReturnType<typeof createApp> {
  return createApp(services, mounts);
}
