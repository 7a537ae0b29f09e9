/** Preloaded into a program (`node --import`): it finds a GPU that has little memory left. */
import { installStubDriver } from './stub-driver.ts';

installStubDriver({ freeBytes: (1024 + 160) * 2 ** 20 });
