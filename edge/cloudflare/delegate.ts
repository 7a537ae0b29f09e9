/** Methods of a Durable Object that only call the same method of what it holds. */

/** A method of an object as its callers declare it: the contract has the exact types. */
type Method = (...args: never[]) => Promise<unknown>;

/**
 * Defines each method of the list on the class's prototype, which is where workerd's RPC looks for
 * what may be called. A method that the class has itself stays.
 */
export function delegate<Self extends object, Name extends string>(
  prototype: Self,
  methods: readonly Name[],
  targetOf: (self: Self) => Record<Name, Method>,
): void {
  for (const name of methods) {
    if (Object.hasOwn(prototype, name)) continue;
    const value = async function (this: Self, ...args: never[]): Promise<unknown> {
      return targetOf(this)[name](...args);
    };
    Object.defineProperty(prototype, name, { value, writable: true, configurable: true });
  }
}
