// Lets the prisma CLI work without its downloaded engines: with engine 'js' it asks an adapter, and what we use of the
// CLI (format, validate, migrate diff between schema files) asks no database anything, so the adapter is a stub.
import { defineConfig } from 'prisma/config';

const connection = {
  provider: 'postgres',
  adapterName: 'offline',
  getConnectionInfo: () => ({ schemaName: 'public', supportsRelationJoins: true }),
  executeScript: async () => undefined,
  executeRaw: async () => 0,
  queryRaw: async () => ({ columnNames: [], columnTypes: [], rows: [] }),
  dispose: async () => undefined,
};
const connect = async () => connection;
const adapter = { provider: 'postgres', adapterName: 'offline', connect, connectToShadowDb: connect };

export default defineConfig({
  engine: 'js',
  experimental: { adapter: true },
  schema: '../schema.prisma',
  adapter: async () => adapter,
});
