/** drizzle-kit writes migrations.js, which this types; bundlers need a Text rule for .sql files. */
declare const migrations: {
  readonly journal: {
    readonly entries: { idx: number; when: number; tag: string; breakpoints: boolean }[];
  };
  readonly migrations: Record<string, string>;
};
export default migrations;
