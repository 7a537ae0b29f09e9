/** Stubs: objects with the methods of a contract whose calls are answered somewhere else. */

/** Finds the target, makes the one call on it, and lets go of it again. */
export type WithTarget<Target> = <Result>(
  use: (target: Target) => Promise<Result>,
) => Promise<Result>;

/** Any method of a contract: its arguments are passed on and never looked at. */
type Method = (...args: never[]) => Promise<unknown>;

/** A stub whose methods, those of the list, are called on the target that `withTarget` finds. */
export function forward<Name extends string, Target extends Record<Name, Method>>(
  methods: readonly Name[],
  withTarget: WithTarget<Target>,
): Pick<Target, Name> {
  const stub: Partial<Record<Name, Method>> = {};
  for (const name of methods) {
    stub[name] = (...args) => withTarget((target) => target[name](...args));
  }
  // It has each method of the list, with the arguments and the answer that the target's has.
  return stub as Pick<Target, Name>;
}
